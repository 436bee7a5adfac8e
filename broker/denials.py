"""What was refused at the doors: counted by reason, told in the log now and then, never with what was in a message."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from broker import log
from broker.security import Denial

logger = log.get(__name__)

#: Seconds from one log line about a reason to the next.
EVERY: Final = 10.0


class Denials:
    """Belongs to one thread; `counts` may be read by others. Two threads of a process have one each."""

    def __init__(self, every: float = EVERY) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self._every = every
        self._said: dict[Denial, tuple[float, int]] = {}  # when, and how many there were by then

    def count(self, reason: Denial, door: str, who: str) -> None:
        """One more. `who`: an address, or the name or public key of a peer."""
        self.counts["denied_total", reason] += 1
        now, so_far = time.monotonic(), self.counts["denied_total", reason]
        at, told = self._said.get(reason, (-self._every, 0))
        if now - at >= self._every:
            self._said[reason] = now, so_far
            logger.warning("refused at the door", reason=reason, door=door, who=who[:80], times=so_far - told)
