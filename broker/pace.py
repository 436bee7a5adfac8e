"""How long a busy loop lets messages gather before its next turn. Pure: instants and counts in, seconds out."""

from __future__ import annotations

from collections import deque
from typing import Final

#: From so many messages a second on, a turn is better for taking in several: its own cost is paid once for all of them.
BUSY_RATE: Final = 2000.0
#: Turns over which the rate is measured.
_TURNS: Final = 16


class Pace:
    """The message rate of a loop over its last turns, and the pause that it may make. A loop with time never pauses.

    `gather`: seconds from the end of a turn in which messages may gather while the loop is busy.
    """

    def __init__(self, gather: float) -> None:
        self._gather = gather
        self._total = 0
        self._turns: deque[tuple[float, int]] = deque(maxlen=_TURNS)  # the end of a turn, messages until then

    def ended(self, now: float, messages: int) -> None:
        """A turn that took in so many messages has ended."""
        self._total += messages
        self._turns.append((now, self._total))

    def pause(self, now: float) -> float:
        """Seconds to wait from `now` on before messages are looked for; 0: no pause."""
        if len(self._turns) < _TURNS:
            return 0.0
        since, before = self._turns[0]
        if self._total - before < BUSY_RATE * (now - since):
            return 0.0
        return max(0.0, self._turns[-1][0] + self._gather - now)
