"""The board: one page of shared memory on which the processes of a benchmark count. Each slot has a single writer."""

from __future__ import annotations

import mmap
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final

#: Latencies kept: the newest ones; older ones are overwritten.
SAMPLES: Final = 1 << 14
#: Sessions (or consumers) that one board can count apart.
MOST_SESSIONS: Final = 32
_HEADER: Final = 64
_SIZE: Final = 8 * (_HEADER + SAMPLES)


class Slot(IntEnum):
    """What is counted where; `RECEIVED` is the first of `MOST_SESSIONS` slots."""

    STOP = 0
    SENT = 1
    ACCEPTED = 2
    COMPLETE = 3
    INCOMPLETE = 4
    REJECTED = 5
    REPEATED = 6
    VOIDED = 7
    SAMPLED = 8
    SKIPPED = 9
    HELD_BYTES = 10
    RECEIVED = 16


class Board:
    """Counters (int64) and a ring of latencies (float64, seconds) in a file mapped by all processes of a trial.

    A mapped file and not `multiprocessing.shared_memory`: unrelated processes open it by name on every system, and it
    goes with the folder it lies in. Aligned eight-byte stores do not tear on the machines that run this.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Board:
        """A new board, all zeros, at `path`."""
        path.write_bytes(bytes(_SIZE))
        return cls(path)

    def __enter__(self) -> Board:
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._view = memoryview(self._map)
        self.counts = self._view[: 8 * _HEADER].cast("q")
        self.latencies = self._view[8 * _HEADER :].cast("d")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for view in (self.counts, self.latencies, self._view):
            view.release()
        self._map.close()

    def __str__(self) -> str:
        return ", ".join(f"{slot.name.lower()} {self.counts[slot]}" for slot in Slot if self.counts[slot]) or "no count"

    def stop_sources(self) -> None:
        """Ask cameras and senders to send nothing more, and to wait for what is under way."""
        self.counts[Slot.STOP] = max(1, self.counts[Slot.STOP])

    def stop(self) -> None:
        """Ask all processes of the trial to end."""
        self.counts[Slot.STOP] = 2

    @property
    def sources_stopped(self) -> bool:
        return self.counts[Slot.STOP] != 0

    @property
    def stopped(self) -> bool:
        return self.counts[Slot.STOP] == 2

    def add_latency(self, seconds: float) -> None:
        """Keep one latency; only one process of a trial may call this."""
        number = self.counts[Slot.SAMPLED]
        self.latencies[number % SAMPLES] = seconds
        self.counts[Slot.SAMPLED] = number + 1

    def received(self, sessions: int) -> int:
        """Messages received by the first `sessions` sessions together."""
        return sum(self.counts[Slot.RECEIVED : Slot.RECEIVED + sessions])

    def latencies_since(self, number: int) -> list[float]:
        """The latencies from the `number`-th on, in seconds, as far as they are still kept."""
        newest = self.counts[Slot.SAMPLED]
        return [self.latencies[index % SAMPLES] for index in range(max(number, newest - SAMPLES), newest)]
