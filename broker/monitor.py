"""Monitor frames: merged in memory and published live, without ledger, number or repeat."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from broker.agenda import Agenda
from broker.expected import BACKSTOP, NO_WORD, Expected
from broker.joined import readable
from broker.plans import Plan
from broker.rulebook import Rulebook
from broker.stream import frame_topic
from broker.turn import Turn
from broker.wire import Expect, Expectation, Key, Outcome, Published, Result

#: Monitor frames that wait for answers, at most; one more closes the oldest.
OPEN: Final = 4096
#: Frames that are remembered after they were closed.
REMEMBERED: Final = 4096

_ENCODE: Final = msgspec.msgpack.Encoder().encode


class Monitors:
    """`turn` takes what concerns monitor frames out of a turn's messages and leaves the rest to the `Joiner`.

    The broker sends these items once and waits for no JACK.
    """

    def __init__(self, rulebook: Rulebook) -> None:
        self._rulebook = rulebook
        self._open: OrderedDict[Key, Expected] = OrderedDict()
        self._past: OrderedDict[Key, None] = OrderedDict()
        self._due = Agenda()

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: object) -> bool:
        """Whether this is the key of a monitor frame."""
        return key in self._open or key in self._past

    def turn(self, messages: Iterable[Any], now: float, wall: float, ledger_id: str) -> Turn:
        """What to publish, and counts; no rows and no acks."""
        turn = Turn(now, wall)
        for message in messages:
            if isinstance(message, Expect):
                for item in message.items:
                    if item.policy == "monitor" and item.key not in self:
                        self._expect(turn, item)
            elif isinstance(message, Result) and self._open:
                for outcome in message.items:
                    self._answer(turn, outcome, ledger_id)
        for key in self._due.due(now):
            self._give_up(turn, key, ledger_id)
        while len(self._open) > OPEN:
            self._give_up(turn, next(iter(self._open)), ledger_id)
        return turn

    def next_due(self) -> float | None:
        """The instant at which `turn` has something to do without a message."""
        return self._due.next()

    def _expect(self, turn: Turn, item: Expectation) -> None:
        plan = Plan(0, item.station, tuple(dict.fromkeys(item.models)), tuple(item.required), item.line)
        frame = self._open[item.key] = Expected(item.key, "monitor", plan, item.part, turn.now)
        self._due.set(frame.key, turn.now + item.budget + BACKSTOP)

    def _answer(self, turn: Turn, item: Outcome, ledger_id: str) -> None:
        frame = self._open.get(item.key)
        if frame is None or item.model in frame.answers or item.model not in frame.plan.models:
            return
        frame.answers[item.model] = readable(item)
        if frame.complete:
            self._close(turn, frame, ledger_id)

    def _give_up(self, turn: Turn, key: Key, ledger_id: str) -> None:
        frame = self._open.get(key)
        if frame is not None:
            frame.answers.update(dict.fromkeys(frame.unanswered(), NO_WORD))
            self._close(turn, frame, ledger_id)

    def _close(self, turn: Turn, frame: Expected, ledger_id: str) -> None:
        del self._open[frame.key]
        self._due.drop(frame.key)
        self._past[frame.key] = None
        if len(self._past) > REMEMBERED:
            self._past.popitem(last=False)
        camera = frame.key.camera
        if all(answer.status == "dropped" for answer in frame.answers.values()):
            turn.counts["dropped_whole_total", camera] += 1
            return
        joined = frame.compose(self._rulebook, turn.now, turn.wall)
        turn.counts["joined_total", camera, joined.outcome] += 1
        turn.counts["verdicts_total", frame.plan.station, joined.verdict] += 1
        turn.seconds.append(turn.now - frame.opened)
        header = _ENCODE(Published(ledger_id=ledger_id, seq=None, previous=None))
        turn.live.append((frame_topic(camera).encode(), header, joined.body))
