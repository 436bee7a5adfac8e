"""Ends a process whose model threads are stuck, with the traceback of every thread, even if one holds the GIL.

The supervisor starts it again; the broker has long given its jobs to others.
"""

from __future__ import annotations

import faulthandler
import sys
from typing import Final

#: Seconds beyond the longest exec_timeout: the broker judges first, and a busy machine is no hang.
MARGIN: Final = 1.0


class Watchdog:
    """A timer in C that must be fed; it needs no Python to run out. One per process."""

    def __init__(self, exec_timeout: float) -> None:
        self.timeout = exec_timeout + MARGIN
        self._armed_at: float | None = None

    def feed(self, now: float) -> None:
        """Start the time again. Costs a thread, so it is done a few times within `timeout` only."""
        if self._armed_at is None or now - self._armed_at > self.timeout / 8:
            faulthandler.dump_traceback_later(self.timeout, exit=True, file=sys.__stderr__ or sys.stderr)
            self._armed_at = now

    def cancel(self) -> None:
        """The process ends by itself."""
        faulthandler.cancel_dump_traceback_later()
        self._armed_at = None
