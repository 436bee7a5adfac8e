"""What has to be done at an instant, by frame key."""

from __future__ import annotations

import heapq

from broker.wire import Key


class Agenda:
    """At most one instant per key, the earliest that was set. Instants are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._order: list[tuple[float, Key]] = []  # also holds what was dropped or set earlier since

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: Key, at: float) -> None:
        """Set the instant of `key`; a later one than is set already changes nothing."""
        if at >= self._at.get(key, at + 1.0):
            return
        self._at[key] = at
        heapq.heappush(self._order, (at, key))
        if len(self._order) > 2 * len(self._at) + 1024:
            self._order = [(instant, name) for name, instant in self._at.items()]
            heapq.heapify(self._order)

    def drop(self, key: Key) -> None:
        self._at.pop(key, None)

    def due(self, now: float) -> list[Key]:
        """Take out the keys whose instant has come, the earliest first."""
        found = []
        while self._order and self._order[0][0] <= now:
            at, key = heapq.heappop(self._order)
            if self._at.get(key) == at:
                del self._at[key]
                found.append(key)
        return found

    def next(self) -> float | None:
        """The next instant; None: nothing is to be done."""
        while self._order and self._at.get(self._order[0][1]) != self._order[0][0]:
            heapq.heappop(self._order)
        return self._order[0][0] if self._order else None
