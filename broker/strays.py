"""Items of the broker about frames that were never expected."""

from __future__ import annotations

from typing import Final

#: Seconds that an item waits, unacknowledged, for the EXPECT of its frame; then nobody asked for it.
PATIENCE: Final = 1.0
#: Strays that are remembered; more are not, and come again.
LIMIT: Final = 8192


class Strays:
    """An answer can overtake its EXPECT (the first one was lost, or came while the ledger failed). To acknowledge it at
    once would lose it: the broker is left to repeat it, and only one that still has no frame after that is given up."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def given_up(self, ticket: int, now: float) -> bool:
        """Item `ticket` has no frame now either: whether it is time to acknowledge and forget it."""
        since = self._since.get(ticket)
        if since is None:
            if len(self._since) >= LIMIT:
                self._since = {each: at for each, at in self._since.items() if now - at < 2 * PATIENCE}
            if len(self._since) < LIMIT:
                self._since[ticket] = now
            return False
        if now - since < PATIENCE:
            return False
        del self._since[ticket]
        return True

    def clear(self) -> None:
        """Another broker counts its tickets anew, or the ledger failed and what came before is to come again."""
        self._since.clear()
