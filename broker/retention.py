"""What the ledger keeps, and when it deletes: by age, by size, and where the disk is full. Pure: facts in, steps out.

Work is cut into steps of a few milliseconds, which the join does between its turns. While messages wait there is none,
unless the ledger is at its limit: then every turn makes room for the next.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from broker.part import FORGET_AFTER

#: Seconds between two looks at a ledger in which nothing is to be deleted.
LOOK_EVERY: Final = 0.25
#: Seconds between two rounds through what is deleted with its frames' last: boots, parts.
TIDY_EVERY: Final = 1.0
#: Seconds that the deletions of one step may take; committing them comes on top. Beyond the limit the bytes count more.
STEP_SECONDS: Final = 0.002
OVER_SECONDS: Final = 0.02
#: Free pages that one step gives back to the disk.
STEP_PAGES: Final = 64
#: After a step, so many times its length belongs to the line.
REST: Final = 3.0
#: Deletion begins so far below the limit, and becomes urgent so far below it.
BEGINS: Final = 0.85
URGENT: Final = 0.95
#: The least limit in bytes: less would hold little more than the log.
LEAST_BYTES: Final = 32 << 20
#: Share of the limit that the write-ahead log may take, and the most it may.
LOG_SHARE: Final = 0.25
LOG_MOST: Final = 64 << 20
#: Seconds after which a disk that was full is tried again.
FULL_FOR: Final = 600.0


class Keep(NamedTuple):
    """How much to keep: seconds since a frame was accepted, bytes of the ledger's files. 0: without limit."""

    seconds: float = 0.0
    bytes: int = 0

    @property
    def for_ever(self) -> bool:
        return not self.seconds and not self.bytes

    @property
    def limit(self) -> int:
        """Bytes on the disk, the log included; 0: without limit."""
        return max(self.bytes, LEAST_BYTES) if self.bytes else 0

    @property
    def log(self) -> int:
        """Bytes of the limit that are the write-ahead log's."""
        return min(int(self.limit * LOG_SHARE), LOG_MOST)


#: Nothing is ever deleted.
FOR_EVER: Final = Keep()


def keep(days: float, gb: float) -> Keep:
    """What the line file and the command line ask for."""
    return Keep(days * 86400.0, round(gb * 2**30))


class Holding(NamedTuple):
    """What the ledger's file holds: pages of `page` bytes, `free` of them unused; `shrinks`: they can be given back.
    `oldest`: unix seconds of the oldest publication, None without any; `spare`: there is a reserve for a full disk."""

    pages: int
    free: int
    page: int
    shrinks: bool
    oldest: float | None
    spare: bool = True

    @property
    def used(self) -> int:
        """Bytes of pages in use."""
        return (self.pages - self.free) * self.page


class Delete(NamedTuple):
    """Delete the oldest publications with all that belongs to them, those of before `before` (unix seconds)."""

    before: float
    seconds: float = STEP_SECONDS


class Shrink(NamedTuple):
    """Give free pages back to the disk."""

    pages: int


class Tidy(NamedTuple):
    """Delete boots and parts that have lost their last frame; parts that were closed before `closed_before` (unix
    seconds): a younger one must stay known, or a late frame of it would open it again."""

    closed_before: float


Step = Delete | Shrink | Tidy


class Retention:
    """Decides. `now`: monotonic seconds; `wall`: unix seconds, to which ages refer."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._started: tuple[float, float] | None = None  # monotonic, unix
        self._next = -math.inf
        self._tidy_at = -math.inf
        self._most = float(keep.limit - keep.log) if keep.limit else math.inf  # bytes of the file
        self._ceiling: int | None = None  # bytes of the file when the disk was full
        self._ceiling_until = 0.0
        self._urgent = False

    def next_due(self) -> float | None:
        """The instant at which to look again; None: never."""
        return None if self._keep.for_ever else self._next

    def due(self, now: float) -> bool:
        return not self._keep.for_ever and now >= self._next

    def disk_full(self, now: float, holding: Holding) -> bool:
        """The disk has no room for more. True: what is oldest will make some."""
        if self._keep.for_ever:
            return False
        self._ceiling = min(holding.used, self._ceiling or holding.used)
        self._ceiling_until = now + FULL_FOR
        self._next = now
        return True

    def decide(self, now: float, wall: float, holding: Holding, idle: bool) -> Step | None:
        """The step to do now, if any; `idle`: no message waits."""
        self._next = now + LOOK_EVERY
        wall = self._sober(now, wall)
        limit = self._room(now, holding.spare)
        self._urgent = limit is not None and holding.used > URGENT * limit
        if not idle and not self._urgent:
            return None
        if holding.oldest is not None and limit is not None and holding.used > BEGINS * limit:
            return Delete(math.inf, OVER_SECONDS if holding.used > limit else STEP_SECONDS)
        if self._keep.seconds and holding.oldest is not None and holding.oldest < wall - self._keep.seconds:
            return Delete(wall - self._keep.seconds)
        if holding.shrinks and holding.free and holding.pages * holding.page > self._most:
            return Shrink(min(holding.free, STEP_PAGES))
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_EVERY
            return Tidy(wall - FORGET_AFTER)
        return None

    def done(self, now: float, step: Step, seconds: float, found: bool) -> None:
        """A step took `seconds`; `found`: it had something to do, so that there may be more of it."""
        if found:
            self._next = now + (0.0 if self._urgent else REST * seconds)
            if isinstance(step, Tidy):
                self._tidy_at = now

    def _room(self, now: float, spare: bool) -> float | None:
        """Bytes that pages in use may take; None: no limit. A disk that was full is not tried without a reserve."""
        if self._ceiling is not None and spare and now >= self._ceiling_until:
            self._ceiling = None
        most = self._most if self._ceiling is None else min(self._most, self._ceiling)
        return None if math.isinf(most) else most

    def _sober(self, now: float, wall: float) -> float:
        """A wall clock that is set while the join runs, or was wrong when it started, makes nothing older than it is by
        both: that would delete what is to be kept."""
        if self._started is None:
            self._started = now, wall
        began, first = self._started
        return min(wall, first + (now - began))
