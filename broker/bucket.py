"""So many a second, and a burst at once: what peers may make the broker do or say, however often they ask."""

from __future__ import annotations


class Bucket:
    """`rate` a second on average, `burst` at once. Pure: `now` in seconds is a parameter."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def left(self, now: float) -> float:
        """How many there are at `now`."""
        self._left = min(self._burst, self._left + max(now - self._at, 0.0) * self._rate)
        self._at = max(now, self._at)
        return self._left

    def take(self, now: float) -> bool:
        """Whether there is one left at `now`; it is taken then."""
        if self.left(now) < 1.0:
            return False
        self._left -= 1.0
        return True
