"""The published stream: numbers publications and links each to the one before it on its topic."""

from __future__ import annotations

from typing import Final

import msgspec

from broker.rows import PublishedRow, Snapshot, TopicRow
from broker.turn import Turn
from broker.wire import Published

_ENCODE: Final = msgspec.msgpack.Encoder().encode


def frame_topic(camera: str) -> str:
    """Where joined frames of a camera are published."""
    return f"frame/{camera}/"


def part_topic(station: str) -> str:
    """Where joined parts of a station are published."""
    return f"part/{station}/"


class _Topic:
    """A topic of the stream; `last_seq` is 0 before its first publication."""

    __slots__ = ("last_seq", "name", "number", "segment")

    def __init__(self, number: int, name: str, last_seq: int = 0) -> None:
        self.number, self.name, self.last_seq = number, name, last_seq
        self.segment = name.encode()


class Stream:
    """Numbers are given in the turn whose transaction writes them: none is lost, none is given twice."""

    def __init__(self) -> None:
        self.ledger_id = ""
        self._seq = 0
        self._topics: dict[str, _Topic] = {}
        self._touched: dict[str, _Topic] = {}

    def load(self, ledger_id: str, snapshot: Snapshot) -> None:
        """Go on where the ledger ends."""
        self.ledger_id = ledger_id
        self._seq = snapshot.last_seq
        self._topics = {name: _Topic(number, name, last_seq) for number, name, last_seq in snapshot.topics}
        self._touched.clear()

    def publish(self, turn: Turn, name: str, row: int | None, head: bytes, body: bytes) -> None:
        """`head` is what the ledger keeps beside the results of frame `row`; of a part (None) it is the whole body."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = _Topic(len(self._topics) + 1, name)
        self._touched[name] = topic
        self._seq = seq = self._seq + 1
        previous, topic.last_seq = topic.last_seq or None, seq
        turn.rows.published.append(PublishedRow(seq, previous, topic.number, row, head))
        header = _ENCODE(Published(ledger_id=self.ledger_id, seq=seq, previous=previous))
        turn.live.append((topic.segment, header, body))

    def end_turn(self, turn: Turn) -> None:
        """Write down where the topics of this turn stand."""
        turn.rows.topics.extend(TopicRow(topic.number, topic.name, topic.last_seq) for topic in self._touched.values())
        self._touched.clear()
