"""What the consumer received, from its diary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.wire import Key
from ops.chaos.answer import Answer
from ops.chaos.diary import Entry, Gone, Received


@dataclass(slots=True)
class Heard:
    """How often each frame came, with which outcome and answers, and the monotonic instant at which it first did; and
    what the consumer was told is gone."""

    frames: Counter[Key] = field(default_factory=Counter)
    outcomes: dict[Key, str] = field(default_factory=dict)
    answers: dict[Key, dict[str, Answer]] = field(default_factory=dict)
    at: dict[Key, float] = field(default_factory=dict)
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
                    heard.answers[key] = entry.answers
                    heard.at.setdefault(key, entry.at)
                case Gone():
                    heard.gone.append(entry.text)
        return heard
