"""What was refused at the doors: counted by reason, told in the log now and then, never with what was in a message."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from broker import log
from broker.security import Denial

logger = log.get(__name__)

#: Seconds from the first log line about a door and a reason to the one that says how many more there were.
EVERY: Final = 10.0
#: Peers that the second line names at most.
NAMED: Final = 8


@dataclass(slots=True)
class _Window:
    """From one line to the next."""

    since: float
    first: dict[str, str]
    is_told: bool = False
    more: int = 0
    peers: dict[str, None] = field(default_factory=dict)


class Denials:
    """Any thread may count; the owner calls `turn` now and then, and `close` at the end: only they write to the log."""

    def __init__(self, every: float = EVERY) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self._every = every
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, Denial], _Window] = {}

    def count(self, reason: Denial, door: str, address: str = "", key: str = "", **more: str) -> None:
        """One more. `address` of the peer, `key`: the name of its key, or how that begins; each empty: not known.
        `more` stands in the log line, if it is the first one."""
        address, key = address or "not known", key or "not known"
        with self._lock:
            self.counts["denied_total", reason] += 1
            window = self._windows.get((door, reason))
            if window is not None:
                window.more += 1
                if len(window.peers) < NAMED:
                    window.peers[f"{address}, key {key}"] = None
                return
            self._windows[door, reason] = _Window(time.monotonic(), {"address": address, "key": key, **more})

    def turn(self, now: float) -> None:
        """Tell of the first where a window has opened, and of the rest where one closes."""
        if not self._windows:
            return
        with self._lock:
            fresh = [(which, window) for which, window in self._windows.items() if not window.is_told]
            for _, window in fresh:
                window.is_told = True
            over = [which for which, window in self._windows.items() if now - window.since >= self._every]
            closed = [(which, self._windows.pop(which)) for which in over]
        for (door, reason), window in fresh:
            logger.warning("refused at the door", reason=reason, door=door, **window.first)
        for (door, reason), window in closed:
            if window.more:
                event = f"refused at the door, and {window.more} more"
                logger.warning(event, reason=reason, door=door, within=self._every, peers=list(window.peers))

    def close(self) -> None:
        """Tell of all that was not told."""
        self.turn(time.monotonic() + self._every)
