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
    """One question per consumer, the newest. `step` does a bounded piece of work for the one that waited longest."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._waiting: OrderedDict[bytes, _Request] = OrderedDict()

    def __len__(self) -> int:
        """Consumers that wait."""
        return len(self._waiting)

    def ask(self, identity: bytes, since: Since) -> bool:
        """A consumer's question; False: too many wait already."""
        if len(self._waiting) >= WAITING and identity not in self._waiting:
            return False
        self._waiting[identity] = _Request(since, since.seq)
        return True

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
