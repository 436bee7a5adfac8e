"""How long an answer is waited for before it is asked for again. Pure; `now` is in seconds."""

from __future__ import annotations

from typing import Final

#: Seconds that an answer may take at first, and at most. A megabyte takes 30 s at 35 KB/s.
LEAST: Final = 1.0
MOST: Final = 30.0


class Patience:
    """Of who asks one thing at a time. It doubles with each answer that did not come: one that is on its way over a
    slow link would else be asked for again, and given up, for ever. After an answer it is twice what that one took.
    """

    def __init__(self) -> None:
        self._seconds = LEAST
        self._asked_at = 0.0

    @property
    def answer_by(self) -> float:
        """The instant from which the answer to the last question is overdue."""
        return self._asked_at + self._seconds

    def asked(self, now: float, *, again: bool) -> None:
        """`again`: the answer to the last question did not come."""
        self._asked_at = now
        if again:
            self._seconds = min(2 * self._seconds, MOST)

    def answered(self, now: float) -> None:
        self._seconds = min(max(2 * (now - self._asked_at), LEAST), MOST)

    def renew(self) -> None:
        """Who is asked has just come back: what was lost before says nothing of now."""
        self._seconds = LEAST
