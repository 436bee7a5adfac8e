"""The pictures of a camera that were not sent: which of them the broker may not know yet, and what they cost. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from broker.wire import Key, Skip

#: Skips that are remembered until a later frame is settled.
SKIPS_HELD: Final = 1024


class Skips:
    """SKIP messages by seq, in order of their seqs: those that the broker may not have.

    A skip uses up a seq and no credit: a broker's credit is worth one seq more for each skip that was sent and that it
    had not seen when it gave it. `surplus` is how many those are.
    """

    def __init__(self) -> None:
        self._by_seq: dict[int, Skip] = {}
        self._seen: int | None = None  # highest seq that the broker has said to know; None: it does not say
        self._sent: deque[int] = deque(maxlen=SKIPS_HELD)  # after that

    def __contains__(self, seq: int) -> bool:
        return seq in self._by_seq

    def __getitem__(self, seq: int) -> Skip:
        return self._by_seq[seq]

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_seq)

    def __len__(self) -> int:
        return len(self._by_seq)

    @property
    def surplus(self) -> int:
        return len(self._sent)

    def remember(self, key: Key, reason: str) -> bool:
        """Keep a skip; True: the oldest was forgotten for it."""
        self._by_seq[key.seq] = Skip(key=key, reason=reason)
        if len(self._by_seq) <= SKIPS_HELD:
            return False
        del self._by_seq[next(iter(self._by_seq))]
        return True

    def forget_before(self, settled: int) -> None:
        """A later frame is settled, and it went the same way: the broker has these."""
        while self._by_seq and (first := next(iter(self._by_seq))) < settled:
            del self._by_seq[first]

    def new_broker(self) -> None:
        """It has seen nothing, and its credit is worth what it says."""
        self._seen = None
        self._sent.clear()

    def seen(self, seq: int) -> None:
        """The broker knows all up to `seq`. Words come in their order, so that an older one is never beside a newer
        credit."""
        self._seen = seq if self._seen is None else max(self._seen, seq)
        while self._sent and self._sent[0] <= self._seen:
            self._sent.popleft()

    def sent(self, seq: int) -> bool:
        """A skip is on its way; True: the credit that was given is worth one seq more."""
        if self._seen is None or seq <= (self._sent[-1] if self._sent else self._seen):
            return False
        self._sent.append(seq)
        return True
