"""A camera that publishes frames to a broker and holds each until it is settled.

with Camera("cam1", endpoint="tcp://127.0.0.1:7001") as camera:
    key = camera.send(image)          # waits while there is no credit
    camera.try_send(image)            # never waits: without credit the picture is reported as missed
"""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import zmq
from numpy.typing import NDArray

from broker import log, silence
from broker.curve import Credentials
from broker.notifier import Notifier
from broker.wire import Encoding, Key, Policy
from clients.dealer import Context
from clients.encoding import JPEG_QUALITY, Encoded, encode_image
from clients.errors import CameraError, CameraTimeout, FrameTooLarge
from clients.holder import Holder
from clients.latest import LatestHolder
from clients.link import Link
from clients.news import News, OnAccepted, OnSettled
from clients.refusal import explain, stands
from clients.stats import Stats, snapshot

logger = log.get(__name__)

ENDPOINT: Final = "tcp://127.0.0.1:7001"
#: Unsettled frames that are held at most, whatever credit the broker gives.
WINDOW: Final = 256
#: Longest deadline that brokers believe, in seconds.
LONGEST_DEADLINE: Final = 86400.0

_SLICE: Final = 0.5
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")

Image = NDArray[Any] | bytes | bytearray | memoryview


class Camera:
    """Publishes the frames of one camera; a context manager. Any thread may send.

    `deadline`: seconds from capture in which the answer is due. `window`: unsettled frames held at most. `quality`: of
    JPEGs made from arrays. `context`: a ZeroMQ context to share (inproc); by default the camera has its own; a ZAP
    handler in it has no say over the camera, which binds nothing, but has one over servers of ours in it.
    `patience`: seconds without an answer after which the log says that no broker answers.
    `credentials`: for a broker that asks for keys. `notifier`: the service manager, if it is to hear of the camera.
    `on_settled(key, outcome, seconds)` is called for each frame that ends, with the seconds since its capture; outcome
    is `complete`, `incomplete`, `rejected: <reason>` or `lost: <reason>`. `on_accepted(key)` is called before it, once
    the ledger has the frame: from then on it ends in a joined result even if this process dies. (It is left out where
    the first news of a frame is that it is settled.) Both run in the camera's own thread: they must not wait, and must
    not send.
    """

    def __init__(
        self,
        name: str,
        *,
        endpoint: str = ENDPOINT,
        policy: Policy = "inspect",
        deadline: float = 5.0,
        context: Context | None = None,
        window: int | None = None,
        quality: int = JPEG_QUALITY,
        on_settled: OnSettled | None = None,
        patience: float = silence.LIMIT,
        on_accepted: OnAccepted | None = None,
        credentials: Credentials | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise CameraError(f"camera name {name!r}: small letters, digits, '_', '.' and '-' are allowed, up to 64")
        if not 0 < deadline <= LONGEST_DEADLINE:
            raise CameraError(f"deadline {deadline}: it must be above 0 and at most {LONGEST_DEADLINE:.0f} seconds")
        self.name = name
        self.boot = secrets.token_hex(6)
        self.endpoint = endpoint
        self.policy: Policy = policy
        self.deadline = deadline
        self.quality = quality
        self.patience = patience
        self.notifier = notifier or Notifier()
        self._credentials = credentials
        self._context = context
        kind = LatestHolder if policy == "monitor" else Holder
        self._holder = kind(name, self.boot, deadline=deadline, window=window or WINDOW)
        self._changed = threading.Condition()
        self._news = News(name, self._holder, self._changed, on_accepted, on_settled)
        self._link: Link | None = None
        self._own_context: Context | None = None
        self._closed = False

    # --- life --------------------------------------------------------------------------------------------------------

    def open(self) -> Camera:
        """Start to connect; the broker need not be there yet. Raises CameraError for an endpoint that is no address."""
        if self._link is not None or self._closed:
            raise CameraError(f"camera {self.name!r} was opened before: make a new one")
        context = self._context
        if context is None:
            context = self._own_context = zmq.Context()
        self._link = Link(
            self.endpoint,
            context,
            self._holder,
            self._changed,
            self._news.ended,
            self.patience,
            self._news.accepted,
            self._credentials,
            self.notifier,
        )
        try:
            self._link.start()
        except CameraError:
            self._shut()
            raise
        return self

    def close(self, timeout: float | None = None) -> None:
        """Wait until all is settled (by default up to the deadline and a second), say BYE, and close."""
        if self._link is None:
            return
        if not self.flush(self.deadline + 1.0 if timeout is None else timeout):
            self._warn_of_the_rest(self.stats)
        self._shut()

    def _warn_of_the_rest(self, stats: Stats) -> None:
        """Whatever is left when a camera closes is said, and as what it is."""
        if stats.unsettled:
            logger.warning("closed with unsettled frames", camera=self.name, unsettled=stats.unsettled)
        if stats.untold:
            why = "closed with skips that the broker was not told of"
            logger.warning(why, camera=self.name, endpoint=self.endpoint, untold=stats.untold)

    def _shut(self) -> None:
        with self._changed:  # from here on no other thread gets at the link
            link, self._link, self._closed = self._link, None, True
            self._changed.notify_all()
        if link is not None:
            link.stop()
            if self._own_context is not None:
                self._own_context.term()

    def __enter__(self) -> Camera:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- frames ------------------------------------------------------------------------------------------------------

    def send(
        self,
        image: Image,
        *,
        encoding: Encoding | None = None,
        part: str | None = None,
        captured_at: float | None = None,
        timeout: float | None = None,
    ) -> Key:
        """Publish one image; waits while there is no credit, up to `timeout` seconds (None: for ever).

        `image` is what `encode_image` takes: a uint8 array (BGR, or grey) or the bytes of a JPEG or PNG. `part` names
        the workpiece; `captured_at` is `time.monotonic()` at the capture (default: now). A monitor frame never waits:
        it takes the place, and the key, of one that was not sent yet. Raises ImageError, CameraTimeout, or CameraError
        (FrameTooLarge) when the broker refuses this camera or the frame is too large.
        """
        moment = time.monotonic() if captured_at is None else captured_at
        encoded = self._encode(image, encoding, part)
        with self._changed:
            if not self._wait(self._may_go_on, timeout):
                raise CameraTimeout(self._no_credit(timeout))
            return self._take(encoded, part, moment)

    def try_send(
        self,
        image: Image,
        *,
        encoding: Encoding | None = None,
        part: str | None = None,
        captured_at: float | None = None,
    ) -> Key | None:
        """Like `send`, for live and triggered sources: without credit the picture is skipped, said and counted.

        None: it was skipped (`no_credit`); its seq is used up, so that the gap has a reason.
        """
        moment = time.monotonic() if captured_at is None else captured_at
        if not self._room():
            return None
        encoded = self._encode(image, encoding, part)
        with self._changed:
            return self._take(encoded, part, moment) if self._room() else None

    def wait_for_credit(self, timeout: float | None = None) -> bool:
        """Wait until a frame may be sent; False: not within `timeout` seconds. For sources that can wait: what is taken
        only then is young when it leaves. Raises CameraError when the broker refuses this camera."""
        with self._changed:
            self._wait(self._may_go_on, timeout)
            self._check()
            return self._holder.room()

    def skip(self, reason: str) -> Key:
        """Report a picture that was to be taken and was not; `reason` is a word or a few."""
        with self._changed:
            self._check()
            return self._skip(reason)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is unsettled; False: not within `timeout` seconds."""
        with self._changed:
            self._wait(lambda: self._holder.idle() or bool(self._failure()), timeout)
            return self._holder.idle()

    @property
    def reached(self) -> bool:
        """Whether a broker has welcomed this camera since it was opened."""
        with self._changed:
            return bool(self._holder.epoch)

    @property
    def stats(self) -> Stats:
        """A consistent snapshot."""
        with self._changed:
            return snapshot(self._holder, self._news.latencies, self._link is not None)

    def latencies(self) -> list[float]:
        """Seconds from capture to settled of the last frames, oldest first."""
        with self._changed:
            return list(self._news.latencies)

    # --- with the lock held ------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for `condition`. In slices: on Windows nothing, not even Ctrl-C, ends a wait for a lock."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._changed.wait(min(left, _SLICE))
        return True

    def _may_go_on(self) -> bool:
        return self._holder.room() or bool(self._failure())

    def _take(self, encoded: Encoded, part: str | None, captured_at: float) -> Key:
        self._check()
        limit = self._holder.max_frame
        if limit and len(encoded.payload) > limit:
            self._skip("too_large")
            raise FrameTooLarge(
                f"a frame of {len(encoded.payload)} bytes ({encoded.encoding}) is over the broker's limit of {limit}: "
                "compress it, or raise limits.max_frame in the line file"
            )
        key = self._holder.take(encoded, part, captured_at)
        self._wake()
        return key

    def _skip(self, reason: str) -> Key:
        key = self._holder.skip(reason[:256])
        self._wake()
        return key

    def _wake(self) -> None:
        if self._link is not None:
            self._link.wake()

    def _check(self) -> None:
        failure = self._failure()
        if failure:
            raise CameraError(failure)

    def _failure(self) -> str:
        """Why no frame can be sent at all, or ""."""
        if self._link is None:
            return f"camera {self.name!r} is " + ("closed" if self._closed else "not open: use it in a with statement")
        if self._link.failure:
            return self._link.failure
        refusal = self._holder.refusal
        if refusal is None or not stands(refusal, time.monotonic()):
            return ""
        why = explain(refusal, self.name, self.policy)
        return f"the broker at {self.endpoint} refuses camera {self.name!r}: {why}"

    def _no_credit(self, timeout: float | None) -> str:
        held = len(self._holder.held)
        if not self._holder.open:
            return f"no broker answered at {self.endpoint} within {timeout} s: is it running? {held} frames are held"
        return f"no credit for camera {self.name!r} within {timeout} s: {held} frames are unsettled"

    # --- without it --------------------------------------------------------------------------------------------------

    def _room(self) -> bool:
        """Room for a frame now; without it a skip is said."""
        with self._changed:
            self._check()
            if self._holder.room():
                return True
            self._skip("no_credit")
            return False

    def _encode(self, image: Image, encoding: Encoding | None, part: str | None) -> Encoded:
        if part is not None and not 1 <= len(part) <= 256:
            raise CameraError(f"a part's name of {len(part)} characters: 1 to 256 are allowed")
        return encode_image(image, encoding, self.quality)
