"""Plans: what is to be done with a frame. All frames of a camera share one until the line file changes."""

from __future__ import annotations

from typing import NamedTuple

from broker.boots import NAME
from broker.rows import PlanRow
from broker.turn import Turn
from broker.wire import Expectation


class Plan(NamedTuple):
    """`number` is the ledger's; 0 where the ledger has nothing to do with it. `digest` names the line file."""

    number: int
    station: str
    models: tuple[str, ...]
    required: tuple[str, ...]
    digest: str


class Plans:
    """The plans of the ledger, by content and by number."""

    def __init__(self) -> None:
        self._by_content: dict[tuple[str, tuple[str, ...], tuple[str, ...], str], Plan] = {}
        self._by_number: dict[int, Plan] = {}

    def __getitem__(self, number: int) -> Plan:
        return self._by_number[number]

    def load(self, rows: list[PlanRow]) -> None:
        self._by_content.clear()
        self._by_number.clear()
        for number, station, models, required, digest in rows:
            self._remember(Plan(number, station, tuple(models.split()), tuple(required.split()), digest))

    def of(self, item: Expectation, turn: Turn) -> Plan | None:
        """The plan of an expected frame, new in this turn if need be; None: it asks for nothing that has a name."""
        content = (item.station, tuple(item.models), tuple(item.required), item.line)
        plan = self._by_content.get(content)
        if plan is not None:
            return plan
        if not item.models or not all(map(NAME.fullmatch, (item.station, *item.models, *item.required))):
            return None
        if len(set(item.models)) < len(item.models):
            return None
        plan = Plan(max(self._by_number, default=0) + 1, *content)
        self._remember(plan)
        turn.rows.plans.append(
            PlanRow(plan.number, plan.station, " ".join(plan.models), " ".join(plan.required), plan.digest)
        )
        return plan

    def _remember(self, plan: Plan) -> None:
        self._by_content[plan[1:]] = self._by_number[plan.number] = plan
