"""Where a consumer stands in the published stream: what it has, what is a repeat, and what it missed. Pure.

A topic's publications form a chain: each names the one before it. A consumer of chosen topics follows their chains; one
of all topics follows the stream itself, whose numbers have no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from broker.wire import Entry, Published


class Position(NamedTuple):
    """All that was published up to `seq` of this ledger, and was asked for, has been taken."""

    ledger_id: str
    seq: int


class Step(Enum):
    """What to do with a live message."""

    TAKE = "take"
    REPEAT = "repeat"
    GAP = "gap"


class Cursor:
    """Takes messages of the live stream and of catch-up, in any mixture; says which of them are new.

    `topics`: the topics to follow, in full; empty: all. A topic is behind while its catch-up is not at its end.
    """

    def __init__(self, topics: Sequence[str], position: Position | None) -> None:
        self.ledger_id = position.ledger_id if position is not None else ""
        self._chains: dict[str, int] = dict.fromkeys(topics or ("",), position.seq if position is not None else 0)
        self._known = position is not None
        self._quiet: set[str] = set(self._chains)
        #: Topics that have to be caught up with; "" stands for all.
        self.behind: set[str] = set(self._chains)

    @property
    def position(self) -> Position | None:
        """None until the join has said where its stream stands."""
        return Position(self.ledger_id, min(self._chains.values())) if self._known else None

    def live(self, topic: str, header: Published) -> Step:
        """A message of the live stream. TAKE: it is the next one, the cursor has moved on to it, and its topic is not
        behind any more. GAP: others are missing before it, and its topic is behind."""
        if header.seq is None:
            return Step.TAKE
        chain = self._chain(topic)
        if chain is None or (self._known and header.ledger_id == self.ledger_id and header.seq <= self._chains[chain]):
            return Step.REPEAT
        previous = header.seq - 1 if chain == "" else header.previous or 0
        if header.ledger_id != self.ledger_id:
            self.behind.update(self._chains)  # which will be told what of the new ledger it can have
            return Step.GAP
        if previous > self._chains[chain]:
            self.behind.add(chain)
            return Step.GAP
        self.behind.discard(chain)
        self._move(chain, header.seq)
        return Step.TAKE

    def past(self, entry: Entry) -> bool:
        """A message of catch-up: whether it is new; then the cursor has moved on to it."""
        chain = self._chain(entry.topic)
        if chain is None or entry.seq <= self._chains[chain]:
            return False
        self._move(chain, entry.seq)
        return True

    def passed(self, topics: Iterable[str], seq: int) -> None:
        """All that was published of these topics up to `seq` has been taken."""
        for topic in topics:
            self._chains[topic] = max(self._chains[topic], seq)

    def after(self, topics: Iterable[str]) -> int:
        """The seq after which to catch up with these topics."""
        return min(self._chains[topic] for topic in topics)

    def found(self, ledger_id: str) -> None:
        """PAGE: what is asked for from the beginning of whatever ledger there is, is of this one."""
        if not self.ledger_id:
            self.ledger_id = ledger_id

    def caught_up(self, topics: Iterable[str], ledger_id: str, seq: int) -> None:
        """END: nothing of these topics was published after what was taken, up to `seq`."""
        self.ledger_id, self._known = ledger_id, True
        self.passed(topics, seq)
        self.behind.difference_update(topics)

    def restart(self, ledger_id: str, oldest: int) -> None:
        """GONE: go on with the oldest that there is."""
        self.ledger_id, self._known = ledger_id, True
        self._chains = dict.fromkeys(self._chains, oldest - 1)
        self.behind = set(self._chains)

    def check(self) -> None:
        """Catch up with every topic of which nothing came since the last check: what was lost may have been its last
        message, and then no later one tells."""
        self.behind |= self._quiet
        self._quiet = set(self._chains)

    def _chain(self, topic: str) -> str | None:
        if topic in self._chains:
            return topic
        return "" if "" in self._chains else None

    def _move(self, chain: str, seq: int) -> None:
        self._chains[chain] = seq
        self._quiet.discard(chain)
