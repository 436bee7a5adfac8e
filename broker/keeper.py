"""Keeps the ledger within what it may hold: asks `Retention` what to do, has the ledger do it, and counts it."""

from __future__ import annotations

import time
from typing import Protocol

from broker import log
from broker.instants import AHEAD
from broker.ledger_file import LedgerError
from broker.purged import Purged
from broker.retention import Delete, Holding, Retention, Step
from broker.turn import Counts

logger = log.get(__name__)

#: Seconds to wait after a step that failed.
RETRY_AFTER = 0.25


class Holder(Protocol):
    """The ledger, as far as it is needed here."""

    def holding(self, latest: float = ...) -> Holding: ...
    def step(self, step: Step) -> Purged: ...
    def oldest_seq(self) -> int: ...
    def make_room(self) -> None: ...

    @property
    def behind(self) -> bool: ...


class Keeper:
    """One step per `turn`. `short`: the disk is full, and what is oldest must make room before anything is written."""

    def __init__(self, ledger: Holder, retention: Retention, counts: Counts) -> None:
        self.short = False
        self._ledger = ledger
        self._retention = retention
        self._counts = counts
        self._retry_at = 0.0
        self._oldest = 0
        self._longest = 0.0
        self._seconds_total = 0.0

    def due(self, now: float) -> bool:
        return now >= self._retry_at and self._retention.due(now)

    def next_due(self) -> float | None:
        due = self._retention.next_due()
        return None if due is None else max(due, self._retry_at)

    def turn(self, now: float, wall: float, *, idle: bool) -> Purged:
        """Do a step if it is time for one; what was deleted. Raises LedgerError: nothing was."""
        try:
            idle = self.short or (idle and not self._ledger.behind)
            step = self._retention.decide(now, wall, self._ledger.holding(wall + AHEAD), idle)
            self._tell_moved()
            if step is None or not isinstance(step, Delete):
                self.short = False
            if step is None:
                return Purged()
            return self._do(step)
        except LedgerError:
            self._retry_at = now + RETRY_AFTER
            raise

    def disk_full(self, now: float, added: int) -> None:
        """A commit found no room for `added` bytes, as far as that is known."""
        try:
            self.short = self._retention.disk_full(now, self._ledger.holding(), added)
            if self.short:
                self._ledger.make_room()
        except LedgerError as error:
            logger.error("no room can be made", error=str(error))

    def gauges(self) -> dict[tuple[str, ...], float]:
        """Callable from any thread."""
        return {
            ("ledger_oldest_seq",): self._oldest,
            ("ledger_step_seconds_longest",): self._longest,
            ("ledger_step_seconds_total",): self._seconds_total,
        }

    def _tell_moved(self) -> None:
        if self._retention.clock.moved:
            moved = round(self._retention.clock.moved)
            logger.warning("the wall clock was set, and has stayed so: ages refer to it from now on", seconds=moved)

    def _do(self, step: Step) -> Purged:
        started = time.perf_counter()
        purged = self._ledger.step(step)
        seconds = time.perf_counter() - started
        self._longest = max(self._longest, seconds)
        self._seconds_total += seconds
        self._retention.done(time.monotonic(), step, seconds, bool(purged))
        for (what, _, _), count in purged.rows.items():
            self._counts["ledger_deleted_total", what] += count
        self._oldest = self._ledger.oldest_seq()
        return purged
