"""Live cameras by OpenCV (USB, RTSP, HTTP): the newest picture counts, and a stream that is cut is opened again."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import cv2

from broker import log
from clients.errors import SourceError
from clients.sources import SLICE, Shot, Source

logger = log.get(__name__)

#: Seconds to wait before a stream is opened again: the first time, then twice as long each time, up to the longest.
FIRST_BACK_OFF: Final = 0.5
LONGEST_BACK_OFF: Final = 10.0
#: Seconds that opening a stream, and waiting for one picture of it, may take.
STREAM_TIMEOUT: Final = 5.0


class Capture(Protocol):
    """What is needed of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...
    def read(self) -> tuple[bool, Any]: ...
    def release(self) -> None: ...


class LiveCapture(Source):
    """The newest picture of a stream, read by a thread of its own so that stale ones pile up nowhere.

    `open_capture` opens the stream; `name` stands in log lines. A stream that cannot be opened, or ends, is opened
    again after a pause that grows from `back_off` seconds. `connections` counts streams that gave a picture.
    """

    live = True

    def __init__(
        self, open_capture: Callable[[], Capture], name: str, rate: float = 0.0, back_off: float = FIRST_BACK_OFF
    ) -> None:
        super().__init__(rate)
        self.name = name
        self.connections = 0
        self._open_capture = open_capture
        self._back_off = back_off
        self._newest: Shot | None = None
        self._failure: Exception | None = None
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[Shot]:
        reader = threading.Thread(target=self._read_on, name=f"reader of {self.name}", daemon=True)
        reader.start()
        try:
            while self._wait_turn():
                with self._changed:
                    while self._newest is None and not self._closed.is_set():
                        self._changed.wait(SLICE)
                    shot, self._newest = self._newest, None
                if shot is None:
                    break
                yield shot
            if self._failure is not None:
                raise SourceError(f"{self.name}: {self._failure}") from self._failure
        finally:
            self.close()
            reader.join(2 * STREAM_TIMEOUT)

    def close(self) -> None:
        with self._changed:
            self._closed.set()
            self._changed.notify_all()

    # --- the reader --------------------------------------------------------------------------------------------------

    def _read_on(self) -> None:
        try:
            self._read_streams()
        except Exception as error:  # raised again where the pictures are waited for
            self._failure = error
        finally:
            self.close()

    def _read_streams(self) -> None:
        back_off = self._back_off
        while not self._closed.is_set():
            pictures = self._read_stream()
            if pictures:
                back_off = self._back_off
            if not self._closed.is_set():
                what = f"it ended after {pictures} pictures" if pictures else "it gives none: is it on, is it in use?"
                logger.warning("live source is opened again", source=self.name, reason=what, wait=back_off)
            self._closed.wait(back_off)
            back_off = min(2 * back_off, LONGEST_BACK_OFF)

    def _read_stream(self) -> int:
        """Read one stream to its end; how many pictures it gave."""
        capture = self._open_capture()
        pictures = 0
        try:
            while not self._closed.is_set() and capture.isOpened():
                found, image = capture.read()
                if not found:
                    break
                pictures += 1
                self.connections += pictures == 1
                self._show(Shot(image, time.monotonic()))
        finally:
            capture.release()
        return pictures

    def _show(self, shot: Shot) -> None:
        with self._changed:
            self.missed += self._newest is not None
            self._newest = shot
            self._changed.notify_all()


def open_live(spec: str, rate: float) -> LiveCapture:
    """`usb:N` or the address of a stream. Raises SourceError for a USB camera that is not a number."""
    if not spec.startswith("usb:"):
        return LiveCapture(lambda: _open_stream(spec), without_password(spec), rate)
    number = spec.removeprefix("usb:")
    if not number.isdecimal():
        raise SourceError(f"source {spec!r}: USB cameras are numbered, write usb:0 for the first")
    return LiveCapture(lambda: _open_usb(int(number)), spec, rate)


def without_password(url: str) -> str:
    """The address as it may be shown: without the name and password in it."""
    return re.sub(r"//[^/@]*@", "//***@", url)


def _open_stream(url: str) -> Capture:
    milliseconds = round(STREAM_TIMEOUT * 1000)
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    return cv2.VideoCapture(url, cv2.CAP_FFMPEG, options)


def _open_usb(number: int) -> Capture:
    capture = cv2.VideoCapture(number)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture
