"""A frame that waits for the answers of its models, and its joined body once it has them."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from broker.joined import Answer, JoinedFrame, Missing, encode_results, read
from broker.part import Completeness
from broker.plans import Plan
from broker.rows import FrameRow
from broker.rulebook import Rulebook
from broker.verdict import Answers, judge
from broker.wire import Key, Policy, Verdict

#: The deadline is the broker's to keep; a join that hears nothing for so many seconds more closes the frame itself.
BACKSTOP: Final = 0.05
#: What a model is given of which there was no word by then.
NO_WORD: Final = Answer("expired", "no_word")

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_NO_RESULTS: Final = msgspec.Raw(b"")


class Composed(NamedTuple):
    """A joined frame, ready to be published. `body` is `head` + the encoded results."""

    outcome: Completeness
    verdict: Verdict
    head: bytes
    body: bytes


class Expected:
    """One expected frame. Instants are seconds of the monotonic clock; `deadline` is None until the broker says it.
    `outcome` and `verdict` are None while it is open.

    `row`, `part_row`, `stored` (its row was committed) and `suspects` belong to the ledger's side of an inspect frame.
    """

    __slots__ = (
        "answers",
        "deadline",
        "key",
        "opened",
        "outcome",
        "part",
        "part_row",
        "plan",
        "policy",
        "row",
        "stored",
        "suspects",
        "verdict",
    )

    def __init__(self, key: Key, policy: Policy, plan: Plan, part: str | None, opened: float, row: int = 0) -> None:
        self.key = key
        self.policy: Policy = policy
        self.plan = plan
        self.part = part
        self.opened = opened
        self.deadline: float | None = None
        self.answers: dict[str, Answer] = {}
        self.outcome: Completeness | None = None
        self.verdict: Verdict | None = None
        self.row = row
        self.part_row: int | None = None
        self.stored = False
        self.suspects: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        """Whether every model has a terminal status."""
        return len(self.answers) == len(self.plan.models)

    def unanswered(self) -> list[str]:
        return [model for model in self.plan.models if model not in self.answers]

    def looked(self) -> Answers:
        """The models' decoded answers, as `judge` takes them; every model has its terminal status."""
        return {model: read(answer.body) if answer.status == "ok" else None for model, answer in self.answers.items()}

    def compose(self, rulebook: Rulebook, now: float, wall: float) -> Composed:
        """The joined frame; every model has its terminal status. `wall`: unix seconds."""
        key, plan, answers = self.key, self.plan, self.answers
        missing = [
            Missing(model=model, status=answers[model].status, reason=answers[model].reason)
            for model in plan.models
            if answers[model].status != "ok"
        ]
        outcome: Completeness = "incomplete" if missing else "complete"
        rules, alone = rulebook.rules(plan.digest, plan.station)
        # A class that a part must show may be another camera's to see.
        verdict = "none" if rules is None else judge(rules, self.looked(), plan.required, alone or self.part is None)
        head = _ENCODE(
            JoinedFrame(
                camera=key.camera,
                boot=key.boot,
                seq=key.seq,
                station=plan.station,
                part=self.part,
                policy=self.policy,
                outcome=outcome,
                verdict=verdict,
                missing=missing,
                seconds=now - self.opened,
                published_at=wall,
                results=_NO_RESULTS,
            )
        )
        return Composed(outcome, verdict, head, head + encode_results(sorted(answers.items()), len(answers)))

    def as_row(self, accepted_at: float) -> FrameRow:
        return FrameRow(self.row, self.plan.number, self.part, self.part_row, accepted_at, self.outcome, self.verdict)

    def drop_bodies(self) -> None:
        """Once it is published, only who answered what at which try is worth remembering."""
        self.answers = {
            model: Answer(status, reason, tries) for model, (status, reason, tries, _) in self.answers.items()
        }
