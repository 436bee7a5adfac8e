"""Deadlines of open frames, in buckets: adding and removing one costs the same however many there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from broker.task import OpenFrame

#: Width of a bucket in seconds; deadlines themselves are exact.
WIDTH: Final = 0.01


class Timetable:
    """Open frames by deadline. A settled frame is taken out at once, so that nothing holds its payload."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[int, OpenFrame]] = {}
        self._order: list[int] = []  # slots as a heap, each once; one whose bucket is gone is passed over
        self._ordered: set[int] = set()

    def add(self, frame: OpenFrame) -> None:
        slot = int(frame.deadline / WIDTH)
        bucket = self._buckets.get(slot)
        if bucket is None:
            bucket = self._buckets[slot] = {}
            if slot not in self._ordered:
                self._ordered.add(slot)
                heapq.heappush(self._order, slot)
        bucket[id(frame)] = frame

    def remove(self, frame: OpenFrame) -> None:
        slot = int(frame.deadline / WIDTH)
        bucket = self._buckets.get(slot)
        if bucket is not None and bucket.pop(id(frame), None) is not None and not bucket:
            del self._buckets[slot]  # nobody is to be woken for it
            if len(self._order) > 2 * len(self._buckets) + 4096:
                self._order = sorted(self._buckets)
                self._ordered = set(self._order)

    def due(self, now: float) -> Iterator[OpenFrame]:
        """Take out the frames whose deadline has passed."""
        while (slot := self._first()) is not None and slot <= int(now / WIDTH):  # rounded as in `add`
            late = [frame for frame in self._buckets[slot].values() if frame.deadline <= now]
            for frame in late:
                self.remove(frame)
            yield from late
            if slot in self._buckets:
                return

    def next(self, horizon: float) -> float | None:
        """The next deadline if it comes before `horizon`; None: there is none."""
        slot = self._first()
        if slot is None or slot > int(horizon / WIDTH):
            return None
        first = min(frame.deadline for frame in self._buckets[slot].values())
        return first if first < horizon else None

    def _first(self) -> int | None:
        while self._order and self._order[0] not in self._buckets:
            self._ordered.discard(heapq.heappop(self._order))
        return self._order[0] if self._order else None
