"""Pictures on disk, by frame key: <folder>/<verdict>/<camera>/<boot>-<seq>.jpg or .png.

Bounded by bytes and by number: the oldest make room, and are counted.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from broker import filename
from broker.boots import NAME
from broker.picture_file import ENCODINGS, content_of, suffix_of
from broker.wire import Copy, Encoding, Key

#: Pictures on disk at most, however small.
FILES: Final = 200_000

_BOOT: Final = re.compile(r"[0-9a-f]{12}")
_FILE: Final = re.compile(r"([0-9a-f]{12})-(\d{1,19})\.(jpg|png|part)")

Counts = Counter[tuple[str, ...]]


class _File(NamedTuple):
    """A picture on disk. There may be many: its path is made from key and verdict when it is asked for."""

    verdict: str
    suffix: str
    size: int


class Gallery:
    """At most `disk` bytes in `folder`; `keep`: verdicts whose pictures are stored. `load` before anything else.

    Errors of the disk are counted and cost the picture, nothing more.
    """

    def __init__(self, folder: Path, disk: int, keep: Collection[str], counts: Counts) -> None:
        self.counts = counts
        self.disk_bytes = 0
        self._folder = folder
        self._disk = disk
        self._keep = frozenset(keep)
        self._files: OrderedDict[Key, _File] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def load(self) -> None:
        """Find what is on disk from before, the oldest first. Raises OSError when the folder cannot be used."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = sorted(self._scan(), key=lambda each: each[0])
        for _, key, file in found:
            self._forget(key)
            self._files[key] = file
            self.disk_bytes += file.size
        self._make_room(0)

    def put(self, copy: Copy, payload: Any, verdict: str) -> None:
        """Store the picture of a frame of this verdict, if such are kept; `payload` is bytes or a zmq.Frame."""
        if verdict not in self._keep:
            self.counts["pictures_not_kept_total", verdict] += 1
            return
        content = content_of(copy, payload)
        if content is None or len(content) > self._disk:
            self.counts["copies_refused_total", "payload" if content is None else "too_large"] += 1
            return
        self._make_room(len(content))
        key, file = _lean(copy.key), _File(sys.intern(verdict), suffix_of(copy.encoding), len(content))
        try:
            _write(self._path(key, file), content)
        except OSError:
            self.counts["disk_errors_total", "write"] += 1
            return
        self._forget(key)
        self._files[key] = file
        self.disk_bytes += file.size
        self.counts["pictures_kept_total", verdict] += 1

    def find(self, key: Key) -> tuple[Encoding, bytes] | None:
        """The picture of a frame and how it is encoded; whatever the key says, no other file is looked at."""
        file = self._files.get(key)
        if file is None:
            return None
        try:
            return ENCODINGS[file.suffix], self._path(key, file).read_bytes()
        except OSError:
            self.counts["disk_errors_total", "read"] += 1
            return None

    def _path(self, key: Key, file: _File) -> Path:
        return self._folder / file.verdict / key.camera / f"{key.boot}-{key.seq}{file.suffix}"

    def _forget(self, key: Key) -> None:
        file = self._files.pop(key, None)
        if file is not None:
            self.disk_bytes -= file.size

    def _make_room(self, size: int) -> None:
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


def fits(key: Key) -> bool:
    """Whether camera and boot can stand in a path as they are, on every system: `load` reads them back from there."""
    named = NAME.fullmatch(key.camera) and filename.part(key.camera) == key.camera
    return bool(named and _BOOT.fullmatch(key.boot))


def _lean(key: Key) -> Key:
    """The same key, whose names are in memory once for all pictures of a boot."""
    return Key(sys.intern(key.camera), sys.intern(key.boot), key.seq)


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
