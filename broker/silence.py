"""When a peer that should answer has been silent too long, and when it is there again. Pure; `now` is in seconds."""

from __future__ import annotations

from typing import Final, Literal

#: Seconds without an answer after which somebody is to be told.
LIMIT: Final = 3.0

Word = Literal["warn", "back"]


class Silence:
    """Watches one peer: one `warn` for each outage of `limit` seconds, and one `back` after it."""

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._heard_at: float | None = None
        self._warned = False

    def turn(self, heard: bool, now: float) -> Word | None:
        """What is to be said now, given whether the peer was heard since the last turn; the first turn starts the
        clock."""
        if heard or self._heard_at is None:
            self._heard_at = now
        silent = not heard and now - self._heard_at >= self._limit
        if silent == self._warned:
            return None
        self._warned = silent
        return "warn" if silent else "back"
