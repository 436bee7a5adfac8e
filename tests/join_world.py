"""What the join's tests share: a broker's items without a broker, and a joiner on a real ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from broker import line as line_file
from broker.join import Joiner
from broker.ledger import Ledger
from broker.monitor import Monitors
from broker.rulebook import Rulebook
from broker.turn import Turn
from broker.wire import (
    Expect,
    Expectation,
    Key,
    LineText,
    Message,
    Outcome,
    Policy,
    Published,
    Result,
    Status,
)

EPOCH = "b0b0b0b0b0b0"
BOOT = "c0c0c0c0c0c0"
WALL = 1_700_000_000.0

TEXT = """
[stations.press]
part_deadline = 2.0
[stations.press.rules]
ng = ["scratch"]
[stations.free]
[cameras.top]
station = "press"
[cameras.side]
station = "press"
[cameras.lone]
station = "free"
[cameras.eye]
station = "free"
policy = "monitor"
[models.alpha]
[models.beta]
[routes.top]
models = ["alpha"]
[routes.side]
models = ["alpha"]
[routes.lone]
models = ["alpha", "beta"]
[routes.eye]
models = ["alpha"]
"""
DIGEST = line_file.digest(TEXT)
STATION = {"top": "press", "side": "press", "lone": "free", "eye": "free"}


def body(*names: str, score: float = 0.9) -> bytes:
    """A detector's answer that saw `names`."""
    detections = [{"class": 0, "name": name, "score": score, "box": [0, 0, 9, 9], "area": 81.0} for name in names]
    return msgspec.msgpack.encode({"task": "detect", "detections": detections, "timings": {"batch": 1}})


class Items:
    """Makes a broker's items, each with the next ticket."""

    def __init__(self, epoch: str = EPOCH) -> None:
        self.epoch = epoch
        self.ticket = 0

    def next(self) -> int:
        self.ticket += 1
        return self.ticket

    def expectation(
        self,
        key: Key,
        models: list[str] | None = None,
        budget: float = 5.0,
        part: str | None = None,
        policy: Policy = "inspect",
        line: str = DIGEST,
    ) -> Expectation:
        models = models or ["alpha"]
        return Expectation(
            ticket=self.next(),
            key=key,
            policy=policy,
            station=STATION.get(key.camera, "free"),
            models=models,
            required=models,
            budget=budget,
            line=line,
            part=part,
        )

    def outcome(
        self,
        key: Key,
        model: str = "alpha",
        status: Status = "ok",
        reason: str = "",
        tries: int = 1,
        answer: bytes | None = None,
        late: bool = False,
    ) -> Outcome:
        answer = (body() if status == "ok" else b"") if answer is None else answer
        return Outcome(
            ticket=self.next(), key=key, model=model, tries=tries, status=status, reason=reason, body=answer, late=late
        )

    def expect(self, *items: Expectation) -> Expect:
        return Expect(epoch=self.epoch, items=list(items))

    def result(self, *items: Outcome) -> Result:
        return Result(epoch=self.epoch, items=list(items))

    def line(self, text: str = TEXT) -> LineText:
        return LineText(epoch=self.epoch, digest=line_file.digest(text), text=text)


def decoded(turn: Turn) -> list[tuple[str, Published, dict[str, Any]]]:
    """(topic, header, body) of what a turn publishes."""
    return [
        (topic.decode(), msgspec.msgpack.decode(header, type=Published), msgspec.msgpack.decode(sent))
        for topic, header, sent in turn.live
    ]


class Bench:
    """A joiner on a ledger, with a clock that the test turns."""

    def __init__(self, path: Path) -> None:
        self.now = 100.0
        self.path = path
        self.published: list[tuple[str, Published, dict[str, Any]]] = []
        self.open()

    def open(self) -> None:
        self.ledger = Ledger(self.path)
        self.ledger.open()
        self.start()

    def start(self) -> None:
        """A joiner that knows the ledger only."""
        self.rulebook = Rulebook()
        self.monitors = Monitors(self.rulebook)
        self.joiner = Joiner(self.ledger, self.rulebook, self.monitors)
        self.joiner.load(self.now, WALL + self.now)

    def restart(self) -> None:
        self.ledger.close()
        self.open()

    def close(self) -> None:
        self.ledger.close()

    def turn(self, *messages: Message, after: float = 0.0, drained: bool = True) -> Turn:
        """One committed turn, `after` seconds later."""
        self.now += after
        turn = self.joiner.turn(messages, self.now, WALL + self.now, drained)
        for model in self.ledger.commit(turn.rows):
            turn.counts["late_results_total", model] += 1
        self.published += decoded(turn)
        return turn
