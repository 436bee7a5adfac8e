"""Pictures by frame key: in memory until the frame's verdict comes, then on disk if that verdict is kept.

Bounded twice, by bytes in memory and on disk: the oldest make room, and are counted. A picture on disk is
<folder>/<verdict>/<camera>/<boot>-<seq>.jpg or .png.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from broker import filename
from broker.boots import NAME
from broker.payload import CHANNELS
from broker.wire import Copy, Encoding, Key

#: Verdicts that are remembered for pictures that come after them.
VERDICTS: Final = 4096
#: Pictures on disk at most, however small.
FILES: Final = 200_000

_BOOT: Final = re.compile(r"[0-9a-f]{12}")
_FILE: Final = re.compile(r"([0-9a-f]{12})-(\d{1,19})\.(jpg|png|part)")
_ENCODINGS: Final[dict[str, Encoding]] = {".jpg": "jpeg", ".png": "png"}

Counts = Counter[tuple[str, ...]]


class Shown(NamedTuple):
    """A picture for a consumer. `shape` is empty where only the encoded bytes know it."""

    encoding: Encoding
    shape: list[int]
    stride: int | None
    payload: Any


class _File(NamedTuple):
    """A picture on disk. There may be many: its path is made from key and verdict when it is asked for."""

    verdict: str
    suffix: str
    size: int


class Recorder:
    """Takes copies and verdicts in any order. `memory` and `disk` in bytes, `keep`: verdicts whose pictures are stored.

    `load` before anything else. Errors of the disk are counted and cost the picture, nothing more.
    """

    def __init__(self, folder: Path, memory: int, disk: int, keep: Collection[str], counts: Counts) -> None:
        self.counts = counts
        self.memory_bytes = 0
        self.disk_bytes = 0
        self._folder = folder
        self._memory = memory
        self._disk = disk
        self._keep = frozenset(keep)
        self._waiting: OrderedDict[Key, tuple[Copy, Any]] = OrderedDict()
        self._verdicts: OrderedDict[Key, str] = OrderedDict()
        self._files: OrderedDict[Key, _File] = OrderedDict()

    def load(self) -> None:
        """Find what is on disk from before, the oldest first. Raises OSError when the folder cannot be used."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = sorted(self._scan(), key=lambda each: each[0])
        for _, key, file in found:
            self._forget(key)
            self._files[key] = file
            self.disk_bytes += file.size
        self._make_room_on_disk(0)

    def gauges(self) -> dict[tuple[str, ...], float]:
        return {
            ("recorder_memory_bytes",): self.memory_bytes,
            ("recorder_waiting_frames",): len(self._waiting),
            ("recorder_disk_bytes",): self.disk_bytes,
            ("recorder_disk_pictures",): len(self._files),
        }

    def copy(self, copy: Copy, payload: Any, size: int) -> None:
        """A frame as its camera sent it; `payload` is bytes or a zmq.Frame of `size` bytes."""
        key = copy.key
        if not _fits(key):
            self.counts["copies_refused_total", "name"] += 1
            return
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._decide(copy, payload, verdict)
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
            self._decide(*held, verdict)

    def find(self, key: Key) -> Shown | None:
        """The picture of a frame, if it is held; whatever the key says, no other file is looked at."""
        held = self._waiting.get(key)
        if held is not None:
            copy, payload = held
            return Shown(copy.encoding, copy.shape, copy.stride, payload)
        file = self._files.get(key)
        if file is None:
            return None
        try:
            return Shown(_ENCODINGS[file.suffix], [], None, self._path(key, file).read_bytes())
        except OSError:
            self.counts["disk_errors_total", "read"] += 1
            return None

    # --- memory ------------------------------------------------------------------------------------------------------

    def _take(self, key: Key) -> tuple[Copy, Any] | None:
        held = self._waiting.pop(key, None)
        if held is not None:
            self.memory_bytes -= _size(held[1])
        return held

    # --- disk --------------------------------------------------------------------------------------------------------

    def _decide(self, copy: Copy, payload: Any, verdict: str) -> None:
        if verdict not in self._keep:
            self.counts["pictures_not_kept_total", verdict] += 1
            return
        content = _as_file(copy, payload)
        if content is None or len(content) > self._disk:
            self.counts["copies_refused_total", "payload" if content is None else "too_large"] += 1
            return
        self._make_room_on_disk(len(content))
        key, file = _lean(copy.key), _File(sys.intern(verdict), _suffix(copy.encoding), len(content))
        try:
            _write(self._path(key, file), content)
        except OSError:
            self.counts["disk_errors_total", "write"] += 1
            return
        self._forget(key)
        self._files[key] = file
        self.disk_bytes += file.size
        self.counts["pictures_kept_total", verdict] += 1

    def _path(self, key: Key, file: _File) -> Path:
        return self._folder / file.verdict / key.camera / f"{key.boot}-{key.seq}{file.suffix}"

    def _forget(self, key: Key) -> None:
        file = self._files.pop(key, None)
        if file is not None:
            self.disk_bytes -= file.size

    def _make_room_on_disk(self, size: int) -> None:
        """Delete the oldest until `size` bytes more fit; what cannot be deleted is left, and no longer counted on."""
        while self._files and (self.disk_bytes + size > self._disk or len(self._files) >= FILES):
            key, file = next(iter(self._files.items()))
            self._forget(key)
            try:
                self._path(key, file).unlink(missing_ok=True)
                self.counts["pictures_deleted_total",] += 1
            except OSError:
                self.counts["disk_errors_total", "delete"] += 1

    def _scan(self) -> Iterator[tuple[float, Key, _File]]:
        """(time of writing, key, file) of the pictures; other files in the folder are not ours."""
        for verdict in sorted(self._keep | {"ok", "ng", "incomplete", "none"}):
            for camera in _folders(self._folder / verdict):
                for path in camera.iterdir():
                    match = _FILE.fullmatch(path.name)
                    if match is None or not path.is_file() or path.is_symlink():
                        continue
                    if match[3] == "part":  # of a recorder that was killed
                        path.unlink()
                        continue
                    status = path.stat()
                    key = _lean(Key(camera.name, match[1], int(match[2])))
                    yield status.st_mtime, key, _File(verdict, path.suffix, status.st_size)


def _fits(key: Key) -> bool:
    """Whether camera and boot can stand in a path as they are, on every system: `load` reads them back from there."""
    named = NAME.fullmatch(key.camera) and filename.part(key.camera) == key.camera
    return bool(named and _BOOT.fullmatch(key.boot))


def _lean(key: Key) -> Key:
    """The same key, whose names are in memory once for all pictures of a boot."""
    return Key(sys.intern(key.camera), sys.intern(key.boot), key.seq)


def _suffix(encoding: Encoding) -> str:
    return ".jpg" if encoding == "jpeg" else ".png"


def _size(payload: Any) -> int:
    return len(payload) if isinstance(payload, bytes) else len(payload.buffer)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [child for child in parent.iterdir() if child.is_dir() and NAME.fullmatch(child.name)]


def _write(path: Path, content: bytes | memoryview) -> None:
    """The file is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def _as_file(copy: Copy, payload: Any) -> bytes | memoryview | None:
    """What the file will hold: JPEG and PNG as they came, raw pictures as PNG; None where the payload is no picture."""
    buffer = payload if isinstance(payload, bytes) else payload.buffer
    if copy.encoding not in CHANNELS:
        return buffer
    picture = _raw_picture(copy, buffer)
    if picture is None:
        return None
    try:
        encoded, content = cv2.imencode(".png", picture)
    except cv2.error:  # more than a PNG can hold
        return None
    return content.tobytes() if encoded else None


def _raw_picture(copy: Copy, buffer: bytes | memoryview) -> NDArray[np.uint8] | None:
    channels = CHANNELS[copy.encoding]
    height, width = copy.shape[:2] if len(copy.shape) > 1 else (0, 0)
    row = width * channels
    stride = row if copy.stride is None else copy.stride
    if height < 1 or width < 1 or stride < row or len(buffer) < stride * (height - 1) + row:
        return None
    shape, strides = ((height, width, 3), (stride, 3, 1)) if channels == 3 else ((height, width), (stride, 1))
    picture: NDArray[np.uint8] = np.ndarray(shape, np.uint8, buffer, strides=strides)
    if copy.encoding != "bayer_rg8":
        return picture
    return cv2.cvtColor(picture, cv2.COLOR_BayerRGGB2BGR).view(np.uint8) if min(shape) > 2 else None
