"""Open frames and their tasks: what the broker knows about one admitted frame, per model that must see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.wire import Expectation, Frame, Key, Policy

if TYPE_CHECKING:
    from broker.publisher import Publisher
    from broker.roster import Session

#: States of a task, in the order in which it can only move forward (a lost session moves LEASED back to QUEUED).
WAITING: Final = 0  # sent again by the camera: not run until the join has said what is already known
QUEUED: Final = 1
LEASED: Final = 2
DONE: Final = 3  # has its terminal status; the join has not acked it
SETTLED: Final = 4


class OpenFrame:
    """A frame from its first receipt until it is settled. `deadline` is an instant of the broker's monotonic clock."""

    __slots__ = (
        "acked", "deadline", "expectation", "header", "key", "payload", "publisher", "size", "tasks", "unsettled",
    )  # fmt: skip

    expectation: Expectation

    def __init__(self, publisher: Publisher, header: Frame, payload: Any, size: int, deadline: float) -> None:
        self.publisher = publisher
        self.key: Key = header.key
        self.header = header
        self.payload = payload  # bytes or zmq.Frame: opaque here, sent on as it came; None once settled
        self.size = size
        self.deadline = deadline
        self.tasks: dict[str, Task] = {}
        self.unsettled = 0
        self.acked = False  # the join has committed its row

    @property
    def policy(self) -> Policy:
        return self.publisher.policy

    @property
    def complete(self) -> bool:
        """No task is known to have ended otherwise than `ok`."""
        return all(task.ok for task in self.tasks.values())


class Task:
    """One (frame, model). `tries` counts dispatches, `crashes` the sessions that died with it under way. `ok`: no other
    status is known; what the join has committed goes before what was decided here."""

    __slots__ = (
        "crashes", "dseq", "expired", "frame", "leased_at", "model", "ok", "queued_at", "session", "state", "tries",
    )  # fmt: skip

    def __init__(self, frame: OpenFrame, model: str, now: float) -> None:
        self.frame = frame
        self.model = model
        self.state = QUEUED
        self.session: Session | None = None
        self.dseq = 0
        self.tries = 0
        self.crashes = 0
        self.queued_at = now
        self.leased_at = 0.0
        self.expired = False
        self.ok = True
