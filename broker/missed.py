"""What of the live stream's frames did not come, and what to ask the join for it. Pure; `now` is in seconds.

A subscriber misses what is published while it has no connection (the join was away, or shut the door to send a removed
consumer off), and what its queue had no room for. The first is known by the connection, the second by the chain that a
topic's publications form.
"""

from __future__ import annotations

from typing import Final

from broker.patience import Patience
from broker.wire import End, Entry, Gone, Message, Page, Published, Since

#: Seconds after a connection was made at which it is asked once more: a subscription reaches the join a little later.
AGAIN_AFTER: Final = 1.0
#: Prefix of the topics that count.
FRAMES: Final = "frame/"
#: Nothing was published after that: the answer says where the stream stands.
_LATEST: Final = 2**63 - 1


class Missed:
    """Of one subscriber to all frames. What comes twice is the caller's to bear. What was published before the first
    connection was made is not asked for."""

    def __init__(self) -> None:
        self.ledger_id = ""
        self._highest: int | None = None  # seq of the newest that came, None as long as nobody knows
        self._began = 0  # seq where the stream stood at first
        self._chains: dict[str, int] = {}
        self._since: int | None = None  # what is wanted: all after it
        self._asked: int | None = None
        self._patience = Patience()
        self._fresh = False  # a connection was made, and no answer has come since
        self._again: tuple[float, int] | None = None  # when to ask once more, and from where

    def connected(self) -> None:
        """A connection was made. Nothing can have come over it yet."""
        self._fresh = True
        self._patience.renew()
        self._want(_LATEST if self._highest is None else self._highest)

    def live(self, topic: str, header: Published) -> None:
        """A frame came by the live stream."""
        if header.seq is None:
            return
        if header.ledger_id != self.ledger_id:
            self._follow(header.ledger_id, 0 if self.ledger_id else header.seq)
        if (header.previous or 0) > (known := self._chains.get(topic, self._began)):
            self._want(known)
        self._came(topic, header.seq)

    def question(self, now: float) -> Since | None:
        """What to ask now."""
        if self._again is not None and now >= self._again[0]:
            self._want(self._again[1])
            self._again = None
        if self._since is None or (self._asked is not None and now < self._patience.answer_by):
            return None
        self._patience.asked(now, again=self._asked is not None)
        self._asked = self._since
        return Since(ledger_id=self.ledger_id, seq=self._since, topics=[FRAMES])

    def overdue(self, now: float) -> bool:
        """Whether the last question should have been answered by now."""
        return self._asked is not None and now >= self._patience.answer_by

    def answered(self, message: Message, now: float) -> list[Entry]:
        """An answer came: the publications in it."""
        asked, self._asked = self._asked, None
        self._patience.answered(now)
        match message:
            case Page(items=items) if items:
                self.ledger_id = self.ledger_id or message.ledger_id
                for entry in items:
                    self._came(entry.topic, entry.seq)
                if self._since == asked:
                    self._since = items[-1].seq
                return items
            case End():
                if self._highest is None:
                    self._follow(message.ledger_id, message.seq)
                if self._since == asked:
                    self._since = None
                if self._fresh:
                    self._fresh, self._again = False, (now + AGAIN_AFTER, message.seq)
            case Gone():
                self._follow(message.ledger_id, message.oldest - 1)
                self._since = message.oldest - 1
        return []

    def _want(self, since: int) -> None:
        self._since = since if self._since is None else min(self._since, since)

    def _came(self, topic: str, seq: int) -> None:
        self._chains[topic] = max(seq, self._chains.get(topic, 0))
        self._highest = max(seq, self._highest or 0)

    def _follow(self, ledger_id: str, seq: int) -> None:
        """The stream is that of this ledger, from after `seq` on."""
        if self.ledger_id not in ("", ledger_id):
            self._chains.clear()
            self._since = self._again = None
        self.ledger_id = ledger_id
        self._began = self._highest = seq
