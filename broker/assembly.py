"""The join's parts: which frames go into which, their rows in the ledger, and their publication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from broker.expected import Expected
from broker.joined import JoinedPart
from broker.part import FORGET_AFTER, ClosedPart, Completeness, PartFrame, Parts
from broker.rows import Snapshot, StoredPart
from broker.rulebook import Rulebook
from broker.stream import Stream, part_topic
from broker.turn import Turn
from broker.verdict import judge_part
from broker.wire import Key

_ENCODE: Final = msgspec.msgpack.Encoder().encode


class _Open(NamedTuple):
    """An open part: its row, the line file of its first frame, and its deadline on the monotonic clock."""

    number: int
    digest: str
    due: float


class Assembly:
    """Opens a part at its first frame, closes and publishes it once. All of it is in the ledger's transaction."""

    def __init__(self, rulebook: Rulebook, stream: Stream) -> None:
        self._rulebook = rulebook
        self._stream = stream
        self._parts = Parts()
        self._open: dict[tuple[str, str], _Open] = {}
        self._last = 0
        self._next_due: float | None = None

    def __len__(self) -> int:
        return len(self._open)

    def load(self, snapshot: Snapshot, frames: Mapping[Key, Expected], now: float, wall: float) -> None:
        """Take the parts as the ledger has them; `frames`: those of open parts. A deadline that was known goes on,
        another one starts anew. A part that was closed not long ago stays closed."""
        self._parts, self._last = Parts(), snapshot.last_part
        before, self._open = self._open, {}
        for part in snapshot.parts:
            if part.closed_at is not None:
                closed = now - min(max(wall - part.closed_at, 0.0), FORGET_AFTER)
                self._parts.remember(closed, part.station, part.name, [stored.key for stored in part.frames])
        for part in snapshot.parts:
            if part.closed_at is None:
                inside = [frames[stored.key] for stored in part.frames]
                self._resume(part, inside, before.get((part.station, part.name)), now)
        self._next_due = self._parts.next_due()

    def expect(self, turn: Turn, frame: Expected) -> None:
        """A new frame names a part: it goes in, or is on record as `late` or `duplicate`."""
        assert frame.part is not None
        digest, station = frame.plan.digest, frame.plan.station
        name = (station, frame.part)
        cameras, deadline = self._rulebook.part_plan(digest, station)
        said = self._parts.open(turn.now, *name, frame.key, cameras, deadline)
        if said != "open":
            turn.counts["part_frames_refused_total", station, said] += 1
            return
        if name not in self._open:
            self._last += 1
            self._open[name] = _Open(self._last, digest, turn.now + deadline)
            turn.rows.parts.append((self._last, *name, turn.wall))
        frame.part_row = self._open[name].number
        self._next_due = self._parts.next_due()

    def joined(self, turn: Turn, frame: Expected, outcome: Completeness) -> None:
        """A frame that names a part is published."""
        if frame.part_row is not None:
            self._add(turn.now, frame, outcome)
            self._next_due = self._parts.next_due()

    def end_turn(self, turn: Turn) -> None:
        """Publish the parts that have closed."""
        if self._next_due is None or self._next_due > turn.now:
            return
        for part in self._parts.due(turn.now):
            self._publish(turn, part)
        self._next_due = self._parts.next_due()

    def next_due(self) -> float | None:
        return self._next_due

    def _publish(self, turn: Turn, part: ClosedPart) -> None:
        opened = self._open.pop((part.station, part.part))
        rules, _ = self._rulebook.rules(opened.digest, part.station)
        missing = [each.camera for each in part.missing]
        verdict = judge_part(rules, [(frame.answers, frame.required) for frame in part.frames], missing)
        body = _ENCODE(
            JoinedPart(
                station=part.station,
                part=part.part,
                outcome=part.outcome,
                verdict=verdict,
                reason=part.reason,
                frames=[frame.key for frame in part.frames],
                missing=part.missing,
                published_at=turn.wall,
            )
        )
        self._stream.publish(turn, part_topic(part.station), None, body, body)
        turn.rows.closed_parts.append((turn.wall, part.outcome, verdict, opened.number))
        turn.counts["parts_total", part.station, part.outcome] += 1
        turn.counts["part_verdicts_total", part.station, verdict] += 1

    def _add(self, now: float, frame: Expected, outcome: Completeness) -> None:
        assert frame.part is not None
        plan = frame.plan
        rules, _ = self._rulebook.rules(plan.digest, plan.station)
        answers = {} if rules is None else frame.looked()
        joined = PartFrame(key=frame.key, outcome=outcome, answers=answers, required=list(plan.required))
        self._parts.add(now, plan.station, frame.part, joined)

    def _resume(self, part: StoredPart, inside: list[Expected], before: _Open | None, now: float) -> None:
        digest = inside[0].plan.digest
        cameras, deadline = self._rulebook.part_plan(digest, part.station)
        due = now + deadline if before is None else before.due
        self._open[part.station, part.name] = _Open(part.part, digest, due)
        for frame in inside:
            self._parts.open(now, part.station, part.name, frame.key, cameras, due - now)
        for frame in inside:
            if frame.outcome is not None:
                self._add(now, frame, frame.outcome)
