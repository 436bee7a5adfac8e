"""A cable between two hosts that can be made bad: for each packet, when it comes out, or that it never does. Pure."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

#: Bytes that are under way in one direction of a sound cable: more are the surplus of a sender that nothing slows.
_BUFFER: Final = 16_000_000


class Way(StrEnum):
    """A direction: towards the host that it names."""

    NEAR = "near"
    FAR = "far"


class Condition(Struct, frozen=True, kw_only=True):
    """What one direction does to packets. Each is late by `delay` seconds, evenly up to `jitter` more or less; `loss`:
    the share that is lost; `rate` bytes/s, None: no limit; `buffer`: bytes that may be under way; `silent`: nothing
    comes out."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    rate: float | None = None
    buffer: int = _BUFFER
    silent: bool = False


SOUND: Final = Condition()


class Order(Struct, frozen=True, kw_only=True):
    """What becomes of each direction."""

    near: Condition
    far: Condition


#: What became of the packets in each direction: fate -> packets.
Fates = dict[Way, dict[str, int]]


def combined(conditions: Iterable[Condition]) -> Condition:
    """All of these at once: delays add up, and each packet has to survive every loss."""
    every = list(conditions)
    return Condition(
        delay=sum(one.delay for one in every),
        jitter=sum(one.jitter for one in every),
        loss=1 - math.prod(1 - one.loss for one in every),
        rate=min((one.rate for one in every if one.rate is not None), default=None),
        buffer=min((one.buffer for one in every), default=_BUFFER),
        silent=any(one.silent for one in every),
    )


class Lane:
    """One direction of a cable. Packets keep their order. `fates`: how many went `through`, and how many did not: they
    were `lost` by chance, `silenced`, or the surplus of a `full` buffer."""

    def __init__(self, seed: str) -> None:
        """What is lost, and how late the others are, follows from `seed` and the packets."""
        self.fates: Counter[str] = Counter()
        self.waiting = 0
        self._rng = random.Random(seed)
        self._condition = SOUND
        self._queue: deque[tuple[float, bytes]] = deque()
        self._sent_at = -math.inf  # when the last packet has left the sender
        self._due = -math.inf  # when the last packet comes out

    def become(self, condition: Condition) -> None:
        """From now on. What is under way comes out when it was to, but for a cable that falls silent."""
        self._condition = condition
        self._sent_at = -math.inf
        if condition.silent:
            self.fates["silenced"] += len(self._queue)
            self._queue.clear()
            self.waiting = 0

    def put(self, packet: bytes, now: float) -> float | None:
        """A packet goes in at the monotonic instant `now`: when it comes out; None: never."""
        condition = self._condition
        fate = self._fate(len(packet))
        if fate:
            self.fates[fate] += 1
            return None
        seconds = len(packet) / condition.rate if condition.rate is not None else 0.0
        self._sent_at = max(now, self._sent_at) + seconds
        late = max(0.0, condition.delay + condition.jitter * (2 * self._rng.random() - 1))
        self._due = max(self._due, self._sent_at + late)
        self._queue.append((self._due, packet))
        self.waiting += len(packet)
        return self._due

    def take(self, now: float) -> list[bytes]:
        """The packets that have come out by `now`."""
        out = []
        while self._queue and self._queue[0][0] <= now:
            out.append(self._queue.popleft()[1])
            self.waiting -= len(out[-1])
        self.fates["through"] += len(out)
        return out

    @property
    def next(self) -> float | None:
        """When the next packet comes out; None: none is under way."""
        return self._queue[0][0] if self._queue else None

    def _fate(self, size: int) -> str:
        """Why a packet of this size never comes out, or empty."""
        condition = self._condition
        if condition.silent:
            return "silenced"
        if condition.loss and self._rng.random() < condition.loss:
            return "lost"
        return "full" if self.waiting + size > condition.buffer else ""
