"""Catch-up: what was published, for consumers that were away. Answers SINCE with PAGE, END or GONE."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple, Protocol

from broker.wire import End, Entry, Gone, Message, Page, Since

#: Publications and bytes in one page at most, whatever limit was asked for; one publication always fits. A page is
#: made between two turns of the join: this size delays it by a millisecond or two.
PAGE_ITEMS: Final = 64
PAGE_BYTES: Final = 1 << 20
#: Consumers that may wait for their answer at once; one more is not heard, and asks again.
WAITING: Final = 256
#: Seconds that a consumer is not answered after it did not take an answer, and consumers of which that is remembered.
DEAF_FOR: Final = 1.0
DEAF: Final = 1024


class Past(Protocol):
    """What the ledger is asked."""

    ledger_id: str

    def last_seq(self) -> int: ...
    def oldest_seq(self) -> int: ...
    def topics(self, prefixes: list[str]) -> dict[int, str]: ...
    def page(self, after: int, topics: dict[int, str], limit: int, size: int) -> tuple[list[Entry], int]: ...


class _Request(NamedTuple):
    since: Since
    after: int


class CatchUp:
    """One question per consumer, the newest. `step` does a bounded piece of work for the one that waited longest.

    A consumer that asks and does not read costs a page a second, whatever it asks.
    """

    def __init__(self, past: Past) -> None:
        self._past = past
        self._waiting: OrderedDict[bytes, _Request] = OrderedDict()
        self._deaf: OrderedDict[bytes, float] = OrderedDict()  # until when

    def __len__(self) -> int:
        """Consumers that wait."""
        return len(self._waiting)

    def ask(self, identity: bytes, since: Since, now: float = 0.0) -> bool:
        """A consumer's question; False: too many wait already, or it did not read the last answer."""
        if len(self._waiting) >= WAITING and identity not in self._waiting:
            return False
        if now < self._deaf.get(identity, 0.0):
            return False
        self._waiting[identity] = _Request(since, since.seq)
        return True

    def unread(self, identity: bytes, now: float) -> None:
        """An answer could not be given to this consumer: it is gone, or does not read."""
        self._waiting.pop(identity, None)
        self._deaf[identity] = now + DEAF_FOR
        self._deaf.move_to_end(identity)
        if len(self._deaf) > DEAF:
            self._deaf.popitem(last=False)

    def step(self) -> tuple[bytes, Message] | None:
        """(who, answer), or None where the search goes on or nobody waits. Raises LedgerError; the question is lost."""
        if not self._waiting:
            return None
        identity, (since, after) = self._waiting.popitem(last=False)
        past = self._past
        oldest, last = past.oldest_seq(), past.last_seq()
        if since.ledger_id not in ("", past.ledger_id) or after < oldest - 1:
            return identity, Gone(ledger_id=past.ledger_id, oldest=oldest)
        if after >= last:
            return identity, End(ledger_id=past.ledger_id, seq=last)
        limit = min(max(since.limit, 1), PAGE_ITEMS)
        entries, looked = past.page(after, past.topics(since.topics), limit, PAGE_BYTES)
        if entries:
            return identity, Page(ledger_id=past.ledger_id, items=entries)
        if looked >= last:
            return identity, End(ledger_id=past.ledger_id, seq=last)
        self._waiting[identity] = _Request(since, looked)
        return None
