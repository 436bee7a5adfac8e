"""What the ledger keeps, and when it deletes: by age, by size, and where the disk is full. Pure: facts in, steps out.

Work is cut into steps of a few milliseconds, which the join does between its turns. While messages wait there is none,
unless the ledger is at its limit, or the oldest is late: then each step deletes more than was written since the step
before, so that what is kept shrinks however quickly the line writes, until nothing is late any more.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from broker.consistency import LEAST_GB, too_little
from broker.instants import AHEAD
from broker.part import FORGET_AFTER
from broker.wall_clock import WallClock

#: Seconds between two looks at a ledger in which nothing is to be deleted.
LOOK_EVERY: Final = 0.25
#: Seconds between two rounds through what is deleted with its frames' last: boots, parts.
TIDY_EVERY: Final = 1.0
#: On a line that never rests: seconds after which that is done all the same.
TIDY_WITHIN: Final = 10.0
#: By how much of its age, and how many seconds at most, the oldest may be late: a line that rests now and then deletes
#: it then, at no cost to messages.
LATE_SHARE: Final = 0.1
LATE_MOST: Final = 60.0
#: Rows that have to go for each that was written, where the oldest is late or the ledger is at its limit.
GAIN: Final = 1.25
#: Rows that one step has to delete at most, so that no turn takes too long; what is owed beyond is the next step's, at
#: once. A turn of the join writes less on average: it takes in 2,048 items, each good for two rows at most.
MOST_ROWS: Final = 8192
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
#: The least limit in bytes.
LEAST_BYTES: Final = round(LEAST_GB * 2**30)
#: Share of the limit that the write-ahead log may take, and the most it may.
LOG_SHARE: Final = 0.25
LOG_MOST: Final = 64 << 20
#: Seconds for which a boot that was cut is kept, for its camera may come back in it; beyond `Keep.seconds` where only
#: these limit the ledger.
CUT_FOR: Final = 86400.0
#: Bytes of free pages with which a full disk is no reason to delete more: it is the log that has no room, for it cannot
#: be moved while someone reads.
SPARE: Final = 8 << 20
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
        return self.bytes

    @property
    def log(self) -> int:
        """Bytes of the limit that are the write-ahead log's."""
        return min(int(self.limit * LOG_SHARE), LOG_MOST)


#: Nothing is ever deleted.
FOR_EVER: Final = Keep()


def keep(days: float, gb: float) -> Keep:
    """What the line file and the command line ask for. Raises ValueError for less GB than `LEAST_GB`."""
    if 0 < gb < LEAST_GB:
        raise ValueError(too_little(gb))
    return Keep(days * 86400.0, round(gb * 2**30))


class Holding(NamedTuple):
    """What the ledger's file holds: pages of `page` bytes, `free` of them unused; `shrinks`: they can be given back.
    `oldest`: unix seconds of the oldest publication or skip, None without any that may go; `spare`: there is a reserve
    for a full disk; `written`: publications and skips that were committed since the ledger was opened."""

    pages: int
    free: int
    page: int
    shrinks: bool
    oldest: float | None
    spare: bool = True
    written: int = 0

    @property
    def used(self) -> int:
        """Bytes of pages in use."""
        return (self.pages - self.free) * self.page


class Delete(NamedTuple):
    """Delete the oldest publications with all that belongs to them, and skips of their age, those of before `before`
    (unix seconds): for `seconds`, and `least` rows however long that takes. Parts that were closed before
    `closed_before` and have lost their last frame go too."""

    before: float
    seconds: float = STEP_SECONDS
    least: int = 0
    closed_before: float = -math.inf
    #: Unix seconds; later instants are not known.
    latest: float = math.inf


class Shrink(NamedTuple):
    """Give free pages back to the disk."""

    pages: int


class Tidy(NamedTuple):
    """Delete boots and parts that have lost their last frame; parts that were closed before `closed_before` (unix
    seconds): a younger one must stay known, or a late frame of it would open it again. Of boots that were cut those of
    before `cut_before`: their cameras may come back in them, with frames that were deleted. `now`: unix seconds."""

    closed_before: float
    cut_before: float = -math.inf
    now: float = -math.inf


Step = Delete | Shrink | Tidy


class Retention:
    """Decides. `now`: monotonic seconds; `wall`: unix seconds, to which ages refer as far as `clock` believes them."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self.clock = WallClock()
        self._next = -math.inf
        self._tidy_at = -math.inf
        self._tidy_by = math.inf  # from then on messages wait for it
        self._deleted = False  # by the last step
        self._most = float(keep.limit - keep.log) if keep.limit else math.inf  # bytes of the file
        self._grace = min(LATE_SHARE * keep.seconds, LATE_MOST)
        self._cut_for = CUT_FOR + (0.0 if keep.bytes else keep.seconds)
        self._ceiling: int | None = None  # bytes of the file when the disk was full
        self._ceiling_until = 0.0
        self._urgent = False
        self._written = 0  # as of the last look
        self._owed = 0.0  # rows

    def next_due(self) -> float | None:
        """The instant at which to look again; None: never."""
        return None if self._keep.for_ever else self._next

    def due(self, now: float) -> bool:
        return not self._keep.for_ever and now >= self._next

    def disk_full(self, now: float, holding: Holding, added: int = 0) -> bool:
        """The disk has no room for `added` bytes more, 0: not known. True: what is oldest will make some."""
        if self._keep.for_ever:
            return False
        if self._ceiling is None or holding.free * holding.page < max(SPARE, added):
            self._ceiling = min(holding.used, self._ceiling or holding.used)
        self._ceiling_until = now + FULL_FOR
        self._next = now
        return True

    def decide(self, now: float, wall: float, holding: Holding, idle: bool) -> Step | None:
        """The step to do now, if any; `idle`: no message waits."""
        self._next = now + LOOK_EVERY
        wall = self.clock.read(now, wall)
        if math.isinf(self._tidy_by):
            self._tidy_by = now + TIDY_WITHIN
        limit = self._room(now, holding.spare)
        self._urgent = limit is not None and holding.used > URGENT * limit
        pressed = self._urgent or self._is_late(wall, holding)
        least = self._owing(holding.written, pressed)
        deleted, self._deleted = self._deleted, False
        if now >= self._tidy_by and (deleted or not (idle or pressed)):  # by turns with deletions
            return self._tidy(now, wall)
        if not idle and not pressed:
            return None
        if (delete := self._delete(wall, holding, limit, least)) is not None:
            self._deleted = True
            return delete
        if holding.shrinks and holding.free and holding.pages * holding.page > self._most:
            return Shrink(min(holding.free, STEP_PAGES))
        return self._tidy(now, wall) if now >= self._tidy_at else None

    def done(self, now: float, step: Step, seconds: float, found: bool) -> None:
        """A step took `seconds`; `found`: it had something to do, so that there may be more of it."""
        if isinstance(step, Delete):
            self._owed = max(0.0, self._owed - step.least)
        if found:
            self._next = now + (0.0 if self._urgent or self._owed >= 1.0 else REST * seconds)
            if isinstance(step, Tidy):
                self._tidy_at = now
                self._tidy_by = min(self._tidy_by, now)

    def _delete(self, wall: float, holding: Holding, limit: float | None, least: int) -> Delete | None:
        if holding.oldest is None:
            return None
        if limit is not None and holding.used > BEGINS * limit:
            seconds = OVER_SECONDS if holding.used > limit else STEP_SECONDS
            return Delete(math.inf, seconds, least, wall - FORGET_AFTER, wall + AHEAD)
        before = wall - self._keep.seconds
        if self._keep.seconds and holding.oldest < before:
            return Delete(before, STEP_SECONDS, least, wall - FORGET_AFTER, wall + AHEAD)
        return None

    def _tidy(self, now: float, wall: float) -> Tidy:
        self._tidy_at = now + TIDY_EVERY
        self._tidy_by = now + TIDY_WITHIN
        return Tidy(wall - FORGET_AFTER, wall - self._cut_for, wall)

    def _is_late(self, wall: float, holding: Holding) -> bool:
        """Whether the oldest should have gone some time ago: the line has not rested since."""
        if not self._keep.seconds or holding.oldest is None:
            return False
        return holding.oldest < wall - self._keep.seconds - self._grace

    def _owing(self, written: int, pressed: bool) -> int:
        """Rows that the next step has to delete: more than came in since the last one."""
        grown, self._written = max(0, written - self._written), written
        self._owed = self._owed + GAIN * grown if pressed else 0.0
        return min(math.ceil(self._owed), MOST_ROWS)

    def _room(self, now: float, spare: bool) -> float | None:
        """Bytes that pages in use may take; None: no limit. A disk that was full is not tried without a reserve."""
        if self._ceiling is not None and spare and now >= self._ceiling_until:
            self._ceiling = None
        most = self._most if self._ceiling is None else min(self._most, self._ceiling)
        return None if math.isinf(most) else most
