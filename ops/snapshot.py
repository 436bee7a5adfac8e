"""One look at a whole line: what its processes' metrics say, and how the supervisor's children do."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from ops.scrape import Reading, fetch, merged
from ops.supervisor import Child, Stage, State


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildState:
    """How a process does. `uptime` in seconds, 0 while it does not run."""

    name: str
    stage: Stage
    state: State
    pid: int | None
    uptime: float
    restarts: int
    code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All readings at monotonic instant `at`; `workers` is the sum of all worker processes."""

    at: float = 0.0
    broker: Reading = field(default_factory=Reading)
    join: Reading = field(default_factory=Reading)
    recorder: Reading = field(default_factory=Reading)
    workers: Reading = field(default_factory=Reading)
    children: tuple[ChildState, ...] = ()

    @property
    def restarts(self) -> int:
        return sum(child.restarts for child in self.children)

    def sessions(self) -> dict[str, int]:
        """Registered sessions by model."""
        return {model: int(count) for model, count in self.broker.by("gongwei_sessions", "model").items()}


def take(children: Iterable[Child], pids: dict[str, int]) -> Snapshot:
    """Read every endpoint, one after the other."""
    children = list(children)
    now = time.monotonic()
    running = [child for child in children if child.state is State.RUNNING and child.spec.metrics]
    readings = {
        stage: merged(fetch(child.spec.metrics) for child in running if child.spec.stage is stage) for stage in Stage
    }
    return Snapshot(
        at=now,
        broker=readings[Stage.BROKER],
        join=readings[Stage.JOIN],
        recorder=readings[Stage.RECORDER],
        workers=readings[Stage.WORKER],
        children=tuple(_state(child, pids.get(child.spec.name), now) for child in children),
    )


def _state(child: Child, pid: int | None, now: float) -> ChildState:
    running = child.state is State.RUNNING
    return ChildState(
        name=child.spec.name,
        stage=child.spec.stage,
        state=child.state,
        pid=pid if running else None,
        uptime=now - child.since if running else 0.0,
        restarts=child.restarts,
        code=child.code,
    )
