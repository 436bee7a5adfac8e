"""What a camera was told, from its diary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.wire import Key
from ops.chaos.diary import Accepted, Boot, Bye, Entry, Sent, Settled


@dataclass(slots=True)
class Told:
    """What one boot of a camera was told; `sent` is by seq. `ended`: it said BYE."""

    camera: str = ""
    boot: str = ""
    sent: dict[int, Sent] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    settled: dict[int, Settled] = field(default_factory=dict)
    ended: bool = False

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Told:
        """From a camera's diary."""
        told = cls()
        for entry in entries:
            match entry:
                case Boot():
                    told.camera, told.boot = entry.camera, entry.boot
                case Sent():
                    told.sent[entry.seq] = entry
                case Accepted():
                    told.accepted.add(entry.seq)
                case Settled():
                    told.settled[entry.seq] = entry
                case Bye():
                    told.ended = True
        return told

    @property
    def promised(self) -> set[int]:
        """The frames that the line answers for."""
        return self.accepted | {seq for seq, end in self.settled.items() if end.outcome in ("complete", "incomplete")}

    def key(self, seq: int) -> Key:
        return Key(self.camera, self.boot, seq)
