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
        self._order: list[int] = []

    def add(self, frame: OpenFrame) -> None:
        slot = int(frame.deadline / WIDTH)
        bucket = self._buckets.get(slot)
        if bucket is None:
            bucket = self._buckets[slot] = {}
            heapq.heappush(self._order, slot)
        bucket[id(frame)] = frame

    def remove(self, frame: OpenFrame) -> None:
        bucket = self._buckets.get(int(frame.deadline / WIDTH))
        if bucket is not None:
            bucket.pop(id(frame), None)

    def due(self, now: float) -> Iterator[OpenFrame]:
        """Take out the frames whose deadline has passed."""
        while self._order and self._order[0] * WIDTH <= now:
            slot = self._order[0]
            bucket = self._buckets[slot]
            late = [frame for frame in bucket.values() if frame.deadline <= now]
            for frame in late:
                del bucket[id(frame)]
            yield from late
            if bucket:
                return
            del self._buckets[slot]
            heapq.heappop(self._order)

    def next(self) -> float | None:
        """An instant not after the next deadline, exact when it is near; None: there is none."""
        if not self._order:
            return None
        first = self._buckets[self._order[0]]
        return min((frame.deadline for frame in first.values()), default=(self._order[0] + 1) * WIDTH)
