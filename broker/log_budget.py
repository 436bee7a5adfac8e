"""How many lines of the log peers can cause: so many a second, and a burst. The rest is counted."""

from __future__ import annotations

import time
from typing import Final

from broker.bucket import Bucket
from broker.frames import Counts

#: Log lines that peers can cause in a second, and at once; more are counted.
LINES: Final = 5.0
LINES_AT_ONCE: Final = 50.0


class LogBudget:
    """One for all peers of a broker."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._lines = Bucket(LINES, LINES_AT_ONCE)

    def may_log(self) -> bool:
        """Whether there is room for a line that a peer has caused; counted if not."""
        if self._lines.take(time.monotonic()):
            return True
        self._counts["unlogged_total",] += 1
        return False
