"""How long a busy loop lets messages gather before its next turn. Pure: instants and counts in, seconds out."""

from __future__ import annotations

from collections import deque
from typing import Final

#: Turns over which the rate is measured.
_TURNS: Final = 16


class Pace:
    """The message rate of a loop over its last turns, and the pause that it may make.

    From `busy` messages a second on, turns begin at least `gather` seconds apart: the cost of a turn is then paid once
    for several messages. A loop with time never pauses, nor one whose turns take that long anyway.
    """

    def __init__(self, gather: float, busy: float) -> None:
        self._gather = gather
        self._busy = busy
        self._total = 0
        self._turns: deque[tuple[float, int]] = deque(maxlen=_TURNS)  # the beginning of a turn, messages up to its end

    def turned(self, began: float, messages: int) -> None:
        """A turn is over: when it began, and how many messages it took in."""
        self._total += messages
        self._turns.append((began, self._total))

    def pause(self, now: float) -> float:
        """Seconds to wait from `now` on before messages are taken in; 0: no pause."""
        if len(self._turns) < _TURNS:
            return 0.0
        since, before = self._turns[0]
        elapsed = now - since  # 0 where the clock is too coarse to tell
        if elapsed <= 0.0 or self._total - before < self._busy * elapsed:
            return 0.0
        return max(0.0, self._turns[-1][0] + self._gather - now)
