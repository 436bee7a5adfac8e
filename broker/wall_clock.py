"""The wall clock, as far as ages may refer to it: believed only once it has run steadily. Pure.

A wall clock that is set while the join runs makes nothing older than it is: that would delete what is to be kept. One
that stays where it was set is right in the end: a machine without a battery for its clock starts in 1970, and hears the
time from the network when the join runs already.
"""

from __future__ import annotations

from typing import Final

#: Seconds for which a clock that was set must stay so before ages refer to it.
STEADY: Final = 3600.0
#: Seconds within which the wall clock runs along with the monotonic one: it has not been set.
TOLERANCE: Final = 1.0


class WallClock:
    """`read` it often. `moved`: seconds by which the last `read` moved what is believed; 0.0: it did not."""

    def __init__(self) -> None:
        self.moved = 0.0
        self._believed: float | None = None  # unix minus monotonic seconds, like all leads
        self._other = 0.0  # another one, seen
        self._since: float | None = None  # monotonic: since then without a break

    def read(self, now: float, wall: float) -> float:
        """What ages refer to at `now` (monotonic seconds), where the wall clock says `wall` (unix seconds)."""
        lead = wall - now
        self.moved = 0.0
        if self._believed is None:
            self._believed = lead
        if abs(lead - self._believed) <= TOLERANCE:
            self._since = None
        elif self._since is None or abs(lead - self._other) > TOLERANCE:
            self._since, self._other = now, lead
        elif now - self._since >= STEADY:
            self.moved, self._believed, self._since = lead - self._believed, lead, None
        return min(wall, self._believed + now)
