"""Pictures by frame key: in memory until the frame's verdict comes, then in the gallery if that verdict is kept.

Bounded by bytes: the oldest make room, and are counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

from broker.gallery import Counts, Gallery, fits
from broker.wire import Copy, Encoding, Key

#: Verdicts that are remembered for pictures that come after them.
VERDICTS: Final = 4096


class Shown(NamedTuple):
    """A picture for a consumer. `shape` is empty where only the encoded bytes know it."""

    encoding: Encoding
    shape: list[int]
    stride: int | None
    payload: Any


class Recorder:
    """Takes copies and verdicts in any order. `memory` and `disk` in bytes, `keep`: verdicts whose pictures are stored.

    `load` before anything else.
    """

    def __init__(self, folder: Path, memory: int, disk: int, keep: Collection[str], counts: Counts) -> None:
        self.counts = counts
        self.memory_bytes = 0
        self._memory = memory
        self._gallery = Gallery(folder, disk, keep, counts)
        self._waiting: OrderedDict[Key, tuple[Copy, Any]] = OrderedDict()
        self._verdicts: OrderedDict[Key, str] = OrderedDict()

    @property
    def disk_bytes(self) -> int:
        return self._gallery.disk_bytes

    def load(self) -> None:
        """Find what is on disk from before. Raises OSError when the folder cannot be used."""
        self._gallery.load()

    def gauges(self) -> dict[tuple[str, ...], float]:
        return {
            ("recorder_memory_bytes",): self.memory_bytes,
            ("recorder_waiting_frames",): len(self._waiting),
            ("recorder_disk_bytes",): self._gallery.disk_bytes,
            ("recorder_disk_pictures",): len(self._gallery),
        }

    def copy(self, copy: Copy, payload: Any, size: int) -> None:
        """A frame as its camera sent it; `payload` is bytes or a zmq.Frame of `size` bytes."""
        key = copy.key
        if not fits(key):
            self.counts["copies_refused_total", "name"] += 1
            return
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._gallery.put(copy, payload, verdict)
            return
        self._take(key)
        self._waiting[key] = copy, payload
        self.memory_bytes += size
        while self.memory_bytes > self._memory:
            oldest = next(iter(self._waiting))
            self._take(oldest)
            self.counts["copies_dropped_total", oldest.camera] += 1

    def verdict(self, key: Key, verdict: str) -> None:
        """A frame was published with this verdict."""
        self._verdicts[key] = verdict
        if len(self._verdicts) > VERDICTS:
            self._verdicts.popitem(last=False)
        held = self._take(key)
        if held is not None:
            self._gallery.put(*held, verdict)

    def find(self, key: Key) -> Shown | None:
        """The picture of a frame, if it is held."""
        held = self._waiting.get(key)
        if held is not None:
            copy, payload = held
            return Shown(copy.encoding, copy.shape, copy.stride, payload)
        stored = self._gallery.find(key)
        return None if stored is None else Shown(stored[0], [], None, stored[1])

    def _take(self, key: Key) -> tuple[Copy, Any] | None:
        held = self._waiting.pop(key, None)
        if held is not None:
            self.memory_bytes -= _size(held[1])
        return held


def _size(payload: Any) -> int:
    return len(payload) if isinstance(payload, bytes) else len(payload.buffer)
