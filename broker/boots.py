"""The boots of cameras: numbers for their frames' rows, and which are still open."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from broker.rows import SEQ_LIMIT, BootRow, Snapshot, StoredBoot
from broker.turn import Turn
from broker.wire import BootNote, Key

#: Seconds that a new broker has to speak of an open boot before it counts as cut.
CLAIM_WITHIN: Final = 5.0

#: What names a camera, a station or a model: it becomes a topic and a label.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class Boot:
    """One boot in memory. `first` is the row id of its frame 0, `highest` the highest seq of its frames and skips, -1
    for none, `epoch` the broker that spoke of it last, `ticket` that of the newest note of that broker."""

    __slots__ = ("camera", "epoch", "first", "highest", "last_seq", "name", "number", "state", "ticket")

    def __init__(self, stored: StoredBoot) -> None:
        row = stored.row
        self.number, self.camera, self.name = row.boot, row.camera, row.name
        self.state, self.last_seq, self.epoch = row.state, row.last_seq, row.epoch
        self.first = row.first
        self.highest = stored.highest
        self.ticket = -1

    def row(self, wall: float) -> BootRow:
        return BootRow(self.number, self.camera, self.name, self.state, self.last_seq, self.epoch, wall)


class Boots:
    """Open boots are in memory, and those of which a message spoke since; the rest is recalled."""

    def __init__(self, recall: Callable[[str, str], StoredBoot | None]) -> None:
        """`recall`: what the ledger knows of (camera, boot)."""
        self._recall = recall
        self._boots: dict[tuple[str, str], Boot] = {}
        self._changed: dict[int, Boot] = {}
        self._last = 0
        self._epoch = ""  # the broker that is being heard
        self._claimed_by: float | None = None  # when open boots that it did not speak of become cut

    def load(self, snapshot: Snapshot) -> None:
        self._boots = {(stored.row.camera, stored.row.name): Boot(stored) for stored in snapshot.boots}
        self._changed.clear()
        self._last = snapshot.last_boot

    def heard(self, epoch: str, now: float) -> None:
        """A message of broker `epoch` has come."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._claimed_by = now + CLAIM_WITHIN

    def find(self, key: Key) -> Boot | None:
        """The boot of a frame, if it was ever heard of."""
        name = key[:2]
        boot = self._boots.get(name)
        if boot is None:
            stored = self._recall(*name)
            if stored is not None:
                boot = self._boots[name] = Boot(stored)
        return boot

    def claim(self, key: Key) -> Boot | None:
        """The boot of a frame that the broker speaks of, made if need be; None: the key can be no row."""
        boot = self.find(key) or self._make(key)
        if boot is not None and key.seq < SEQ_LIMIT:
            if boot.epoch != self._epoch:
                boot.epoch = self._epoch
                boot.ticket = -1  # another broker: its tickets begin anew
                self._changed[boot.number] = boot
            return boot
        return None

    def note(self, note: BootNote) -> bool:
        """The broker says how a boot stands; False: the note cannot be recorded. What has ended stays ended."""
        boot = self.claim(Key(note.camera, note.boot, 0))
        if boot is None:
            return False
        if note.ticket >= boot.ticket:
            boot.ticket = note.ticket
            boot.state = boot.state if boot.state == "ended" else note.state
        boot.last_seq = max(boot.last_seq, note.last_seq)
        self._changed[boot.number] = boot
        return True

    def end_turn(self, turn: Turn) -> None:
        """Cut what the broker does not speak of, write down what changed, forget what is over."""
        if self._claimed_by is not None and self._claimed_by <= turn.now:
            self._claimed_by = None
            self._cut(turn)
        for boot in self._changed.values():
            turn.rows.boots.append(boot.row(turn.wall))
        self._changed.clear()
        if len(self._boots) > 4096:
            self._boots = {name: boot for name, boot in self._boots.items() if boot.state == "open"}

    def forget(self, boots: Iterable[tuple[str, str]]) -> None:
        """The ledger has deleted these (camera, boot): their numbers have no row any more."""
        for name in boots:
            self._boots.pop(name, None)

    def next_due(self) -> float | None:
        return self._claimed_by

    def _make(self, key: Key) -> Boot | None:
        if not NAME.fullmatch(key.camera):
            return None
        self._last += 1
        row = BootRow(self._last, key.camera, key.boot, "open", -1, self._epoch)
        boot = self._boots[key[:2]] = self._changed[row.boot] = Boot(StoredBoot(row, -1))
        return boot

    def _cut(self, turn: Turn) -> None:
        for boot in self._boots.values():
            if boot.state == "open" and boot.epoch != self._epoch:
                boot.state = "cut"
                boot.last_seq = max(boot.last_seq, boot.highest)
                self._changed[boot.number] = boot
                turn.counts["boots_cut_total", boot.camera] += 1
