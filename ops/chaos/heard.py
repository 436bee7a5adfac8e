"""What a chaos run's cameras were told, and what its consumer received, as their diaries have it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.wire import Key
from ops.chaos.diary import Accepted, Boot, Bye, Entry, Gone, Received, Sent, Settled


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


@dataclass(slots=True)
class Heard:
    """What the consumer received: how often each frame came, and with which outcome; what it was told is gone."""

    frames: Counter[Key] = field(default_factory=Counter)
    outcomes: dict[Key, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Heard:
        """From the consumer's diary."""
        heard = cls()
        for entry in entries:
            match entry:
                case Received():
                    key = Key(entry.camera, entry.boot, entry.frame)
                    heard.frames[key] += 1
                    heard.outcomes[key] = entry.outcome
                case Gone():
                    heard.gone.append(entry.text)
        return heard
