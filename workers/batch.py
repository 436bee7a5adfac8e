"""Hand-over of prepared jobs from a session's intake thread to its inference thread, in batches and in order.

Two buffers of `max_batch` inputs: while one is being inferred, the other is filled. Nothing is copied and nothing
grows: the intake takes a job from its socket only when there is room for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np

from broker.wire import Job, Status
from workers.placement import Array, Placement

#: A terminal status, or `returned`: the job goes back to the broker.
End: TypeAlias = Status | Literal["returned"]

#: Buffers: one in the engine, one being filled.
BUFFERS: Final = 2


@dataclass(slots=True)
class Tally:
    """Progress of one registration: dseq of the last job that was taken, and of the last one answered."""

    session: str
    started: int = 0
    completed: int = 0


@dataclass(slots=True)
class Work:
    """A job on its way through a session. Instants are monotonic seconds; `status`: ended before the engine."""

    job: Job
    tally: Tally
    received: float
    placement: Placement | None = None
    status: End = "ok"
    reason: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    prepared: float = 0.0

    def overdue(self, now: float) -> bool:
        """The budget that the job came with has run out here."""
        return now - self.received >= self.job.budget

    def end(self, status: End, reason: str) -> None:
        """Say how the job ends without an answer of the model."""
        self.status, self.reason = status, reason


@dataclass(slots=True)
class Batch:
    """Jobs in dseq order. `inputs` holds the pictures of those with status `ok`, in the same order."""

    buffer: Array
    works: list[Work] = field(default_factory=list)
    filled: int = 0

    @property
    def inputs(self) -> Array:
        return self.buffer[: self.filled]


class Batches:
    """The two buffers. `wait_for_room` and `add` belong to the intake thread, `take` to the inference thread."""

    def __init__(self, max_batch: int, size: tuple[int, int], max_delay: float) -> None:
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._free = [Batch(np.zeros((max_batch, 3, *size), np.float32)) for _ in range(BUFFERS)]
        self._open = self._free.pop()
        self._taken: Batch | None = None
        self._writing = False
        self._changed = threading.Condition()

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until another job may be taken; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._full(), timeout)

    def add(self, work: Work, prepare: Callable[[Array], Placement | None]) -> None:
        """Append a job, only after `wait_for_room`. `prepare` writes its input; None: the job has ended already."""
        with self._changed:
            self._writing = True
        # Not under the lock: `take` waits for the end of the writing, but only if it has a batch to take.
        batch = self._open
        work.placement = prepare(batch.buffer[batch.filled])
        with self._changed:
            batch.filled += work.placement is not None
            batch.works.append(work)
            work.prepared = time.monotonic()
            self._writing = False
            self._changed.notify_all()

    def take(self, timeout: float) -> Batch | None:
        """The next batch, waiting at most `timeout` seconds for its first job and then `max_delay` for more.

        It is the caller's until the next call. None: nothing came.
        """
        with self._changed:
            self._give_back()
            if not self._changed.wait_for(lambda: self._open.works, timeout):
                return None
            patience = self._open.works[0].prepared + self._max_delay - time.monotonic()
            self._changed.wait_for(self._full, max(0.0, patience))
            self._changed.wait_for(lambda: not self._writing)
            self._taken, self._open = self._open, self._free.pop()
            self._changed.notify_all()
            return self._taken

    def idle(self) -> bool:
        """Nothing waits and nothing is being inferred."""
        with self._changed:
            return not self._open.works and not self._writing and self._taken is None

    def _full(self) -> bool:
        return len(self._open.works) + self._writing >= self._max_batch

    def _give_back(self) -> None:
        if self._taken is not None:
            self._taken.works.clear()
            self._taken.filled = 0
            self._free.append(self._taken)
            self._taken = None
