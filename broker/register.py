"""The frames that the join knows: open ones, closed ones of late, and, through the ledger, all others."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from broker.boots import Boots
from broker.expected import Expected
from broker.part import Completeness
from broker.plans import Plans
from broker.purged import Purged
from broker.rows import Snapshot, Stored, StoredBoot
from broker.turn import Turn
from broker.wire import Expectation, Key, Verdict

#: Closed frames that are remembered; older ones are asked of the ledger.
REMEMBERED: Final = 4096


class Past(Protocol):
    """What the ledger is asked."""

    ledger_id: str

    def snapshot(self, closed_since: float) -> Snapshot: ...
    def recall(self, frame: int) -> Stored | None: ...
    def gone(self, frame: int) -> bool: ...
    def recall_boot(self, camera: str, name: str) -> StoredBoot | None: ...


class Register:
    """Frames by key. A seq above the highest of its boot is new without a look into the ledger."""

    def __init__(self, past: Past) -> None:
        self.boots = Boots(past.recall_boot)
        self.open: dict[Key, Expected] = {}
        self._past = past
        self._plans = Plans()
        self._closed: OrderedDict[Key, Expected] = OrderedDict()
        self._accepted: list[Expected] = []  # in this turn

    def load(self, snapshot: Snapshot, now: float, wall: float) -> dict[Key, Expected]:
        """Hold exactly the open frames of the ledger; returns those that were held before."""
        before = self.open
        self._closed.clear()
        self._accepted.clear()
        self.boots.load(snapshot)
        self._plans.load(snapshot.plans)
        self.open = {stored.key: self.restore(stored, now, wall) for stored in snapshot.frames}
        return before

    def restore(self, stored: Stored, now: float, wall: float) -> Expected:
        """The frame as the ledger has it. How long it has been open is a guess from the wall clock."""
        row = stored.row
        opened = now - max(wall - row.accepted_at, 0.0)
        frame = Expected(stored.key, "inspect", self._plans[row.plan], row.part, opened, row.frame)
        frame.part_row, frame.stored = row.part_row, True
        frame.outcome, frame.verdict = row.outcome, row.verdict
        frame.answers, frame.suspects = stored.answers, stored.suspects
        return frame

    def find(self, key: Key, turn: Turn) -> Expected | None:
        """The frame, open or closed; None: it was never expected."""
        frame = self.open.get(key) or self._closed.get(key)
        if frame is None:
            boot = self.boots.find(key)
            stored = None if boot is None or key.seq > boot.highest else self._past.recall(boot.first + key.seq)
            if stored is not None:
                frame = self._closed[key] = self.restore(stored, turn.now, turn.wall)
        return frame

    def gone(self, key: Key) -> bool:
        """Whether there was such a frame, or skip, that the ledger has deleted since: it must not be taken for new."""
        boot = self.boots.find(key)
        return boot is not None and key.seq <= boot.highest and self._past.gone(boot.first + key.seq)

    def forget(self, purged: Purged) -> None:
        """The ledger has deleted these frames and boots: what comes of them now has no row to refer to."""
        for key in purged.keys:
            self._closed.pop(key, None)
        self.boots.forget(purged.boots)

    def accept(self, item: Expectation, turn: Turn) -> Expected | None:
        """Open a new frame; None: it can be no row of the ledger."""
        key = item.key
        plan = self._plans.of(item, turn)
        boot = self.boots.claim(key) if plan is not None else None
        if plan is None or boot is None:
            return None
        boot.highest = max(boot.highest, key.seq)
        frame = Expected(key, "inspect", plan, item.part, turn.now, boot.first + key.seq)
        self.open[key] = frame
        self._accepted.append(frame)
        return frame

    def close(self, frame: Expected, outcome: Completeness, verdict: Verdict, turn: Turn) -> None:
        """The frame is published."""
        frame.outcome, frame.verdict = outcome, verdict
        if frame.stored:
            turn.rows.closed_frames.append((outcome, verdict, frame.row))
        del self.open[frame.key]
        frame.drop_bodies()
        self._closed[frame.key] = frame

    def end_turn(self, turn: Turn) -> None:
        """Write down what is new, forget what is old."""
        for frame in self._accepted:
            turn.rows.frames.append(frame.as_row(turn.wall))
            frame.stored = True
        self._accepted.clear()
        self.boots.end_turn(turn)
        while len(self._closed) > REMEMBERED:
            self._closed.popitem(last=False)
