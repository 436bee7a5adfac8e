"""Where pictures come from: files, folders, synthetic parts; live cameras are in `clients.live`.

    with open_source("pictures/", rate=10) as source:
        for shot in source: ...

A source is `live` when its pictures do not wait for anybody: whoever publishes them must not wait either.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from broker import log
from clients.encoding import picture_shape
from clients.errors import ImageError, SourceError

logger = log.get(__name__)

#: Longest single wait, in seconds: on Windows nothing, not even Ctrl-C, ends one.
SLICE: Final = 0.5
#: Files that are sent as they are.
SENT_AS_IS: Final = (".jpg", ".jpeg", ".png")
#: Files that are decoded first.
DECODED: Final = (".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
#: How the spec of synthetic parts begins.
SYNTHETIC: Final = "synthetic:"
#: Specs, for help and errors.
SPECS: Final = (
    "a video or GIF, a picture, a folder of pictures, rtsp://…, http://…, usb:0, synthetic: or synthetic:1280x960"
)

Picture = NDArray[Any] | bytes


class Shot(NamedTuple):
    """One picture (a BGR or grey uint8 array, or the bytes of a JPEG or PNG) and `time.monotonic()` at its capture."""

    image: Picture
    captured_at: float


class Source:
    """Base of the sources: iterate once, from one thread; `close`, from any, ends the iteration within moments.

    `rate` is in pictures a second; 0: as fast as they are taken. `missed` counts pictures that were there and were not
    given out: unreadable files, live pictures that a newer one replaced.
    """

    live = False

    def __init__(self, rate: float) -> None:
        if not 0 <= rate < 1e6:
            raise SourceError(f"rate {rate}: pictures a second, 0 for as fast as they are taken")
        self.rate = rate
        self.missed = 0
        self._closed = threading.Event()
        self._due: float | None = None

    def __iter__(self) -> Iterator[Shot]:
        for image in self._pictures():
            if not self._wait_turn():
                return
            yield Shot(image, time.monotonic())

    def close(self) -> None:
        self._closed.set()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _pictures(self) -> Iterator[Picture]:
        """The pictures, read or drawn ahead of their turn."""
        return iter(())

    def _wait_turn(self) -> bool:
        """Wait for the next tick of `rate`; False: the source was closed. Who is late is not made to catch up."""
        if self.rate > 0:
            now = time.monotonic()
            due = now if self._due is None else max(self._due, now - 1 / self.rate)
            self._due = due + 1 / self.rate
            while now < due and not self._closed.wait(min(due - now, SLICE)):
                now = time.monotonic()
        return not self._closed.is_set()


class VideoFile(Source):
    """The pictures of a video or GIF file; raises SourceError at the first picture if it cannot be read."""

    def __init__(self, path: Path, rate: float, loop: bool) -> None:
        super().__init__(rate)
        self.path = path
        self.loop = loop

    def _pictures(self) -> Iterator[Picture]:
        while True:
            number = 0
            for image in self._once():
                yield image
                number += 1
            if number == 0:
                raise SourceError(f"{self.path}: no picture can be read; is it a video that this OpenCV can decode?")
            if not self.loop:
                return

    def _once(self) -> Iterator[Picture]:
        capture = cv2.VideoCapture(str(self.path))
        try:
            while not self._closed.is_set():
                found, image = capture.read()
                if not found:
                    return
                yield image
        finally:
            capture.release()


class PictureFiles(Source):
    """Picture files in a given order: JPEG and PNG as they are, others decoded. What cannot be read is missed."""

    def __init__(self, paths: list[Path], rate: float, loop: bool) -> None:
        super().__init__(rate)
        self.paths = paths
        self.loop = loop

    def _pictures(self) -> Iterator[Picture]:
        while True:
            readable = 0
            for path in self.paths:
                image = self._read(path)
                if image is not None:
                    readable += 1
                    yield image
            if readable == 0:
                raise SourceError(f"none of the {len(self.paths)} pictures can be read, first: {self.paths[0]}")
            if not self.loop:
                return

    def _read(self, path: Path) -> Picture | None:
        try:
            return read_picture(path)
        except (SourceError, ImageError) as error:
            self.missed += 1
            logger.warning("picture skipped", path=str(path), error=str(error))
            return None


class SyntheticParts(Source):
    """Parts of the synthetic camera. With a rate it is a triggered camera: nobody waits for anybody."""

    def __init__(self, size: tuple[int, int], rate: float, seed: int) -> None:
        super().__init__(rate)
        self.live = rate > 0
        self.size = size
        self.seed = seed

    def _pictures(self) -> Iterator[Picture]:
        from clients.synthetic import SyntheticCamera

        for part in SyntheticCamera(self.seed, size=self.size):
            yield part.image


def open_source(spec: str, *, rate: float = 0.0, loop: bool = False, seed: int = 0) -> Source:
    """The source that `spec` names. `loop` starts files over at their end; `seed` is for synthetic parts.

    Raises SourceError when there is no such source. Live ones are not tried here: they may come and go.
    """
    if spec.startswith(SYNTHETIC):
        return SyntheticParts(_size(spec.removeprefix(SYNTHETIC)), rate, seed)
    if spec.startswith(("usb:", "rtsp://", "rtsps://", "http://", "https://")):
        from clients.live import open_live

        return open_live(spec, rate)
    path = Path(spec)
    if spec and path.is_dir():
        return PictureFiles(pictures_in(path), rate, loop)
    if not path.is_file():
        raise SourceError(f"source {spec!r}: there is no such file or folder; a source is {SPECS}")
    if path.suffix.lower() in SENT_AS_IS + DECODED:
        return PictureFiles([path], rate, loop)
    return VideoFile(path, rate, loop)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by name, numbers by their value; raises SourceError when there is none."""
    suffixes = SENT_AS_IS + DECODED
    paths = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file()]
    if not paths:
        raise SourceError(f"{folder}: no picture in this folder ({', '.join(suffixes)})")
    return sorted(paths, key=lambda path: natural(path.name))


def natural(name: str) -> list[tuple[int, str]]:
    """Sorting key in which part9 comes before part10."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name.lower())]


def read_picture(path: Path) -> Picture:
    """A picture file as something to send; raises SourceError or ImageError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error
    if not data:
        raise SourceError(f"{path}: the file is empty")
    if path.suffix.lower() in SENT_AS_IS:
        picture_shape(data)
        return data
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise SourceError(f"{path}: this is no picture that OpenCV can decode")
    return image


def _size(text: str) -> tuple[int, int]:
    """(height, width) from WIDTHxHEIGHT."""
    if not text:
        return 480, 640
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if match is None or min(map(int, match.groups())) < 64:
        raise SourceError(f"synthetic:{text}: write synthetic:WIDTHxHEIGHT, at least 64 pixels each")
    return int(match[2]), int(match[1])
