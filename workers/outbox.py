"""Answers on their way to the broker: gathered into one DONE per session, kept while it is away, bounded. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from broker.wire import BATCH_LIMIT, Answer, Done, Nack

#: Messages that wait at most, and bytes of their bodies; then the oldest goes, and its frames are run again.
ITEMS: Final = 4096
BYTES: Final = 64 << 20
#: Bytes of bodies in one DONE; a single body is far smaller, and headers need room too.
_DONE_BYTES: Final = BATCH_LIMIT // 2


class Outbox:
    """A queue of DONE and NACK."""

    def __init__(self, items: int = ITEMS, size: int = BYTES) -> None:
        self._limits = items, size
        self._queue: deque[Done | Nack] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, message: Done | Nack) -> int:
        """Append a message; returns how many old ones were discarded for it."""
        self._queue.append(message)
        self._bytes += _size(message)
        discarded = 0
        while len(self._queue) > 1 and (len(self._queue) > self._limits[0] or self._bytes > self._limits[1]):
            self._bytes -= _size(self._queue.popleft())
            discarded += 1
        return discarded

    def next(self) -> tuple[Done | Nack, int] | None:
        """The oldest message, a DONE merged with those that follow for its session, and how many messages that is."""
        if not self._queue:
            return None
        first = self._queue[0]
        if isinstance(first, Nack):
            return first, 1
        items: list[Answer] = []
        count = grant = size = 0
        for message in self._queue:
            size += _size(message)
            if isinstance(message, Nack) or message.session != first.session or (count and size > _DONE_BYTES):
                break
            items += message.items
            grant = max(grant, message.grant)
            count += 1
        return Done(session=first.session, grant=grant, model=first.model, items=items), count

    def sent(self, count: int) -> None:
        """The first `count` messages are on their way."""
        for _ in range(count):
            self._bytes -= _size(self._queue.popleft())


def _size(message: Done | Nack) -> int:
    return 0 if isinstance(message, Nack) else sum(len(answer.body) for answer in message.items)
