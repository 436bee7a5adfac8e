"""Stand-ins for what a camera meets: a broker that settles by itself, and a capture device that fails on purpose.

They ship with the clients so that whoever builds on them can test without a line or a camera.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import zmq
from numpy.typing import NDArray

from broker.wire import Accepted, Bye, Frame, Hello, Message, Reject, Settled, Skip, Welcome, decode_message, encode

#: What `judge` says of a frame: complete, incomplete, a reason to reject it, or None: keep it open.
Judge = Callable[[Frame], str | None]

_OPEN_FOR: Final = 0.02


class Received(NamedTuple):
    """A frame as it came, with its payload."""

    header: Frame
    payload: bytes


class _Camera:
    """The broker's side of one boot of a camera."""

    def __init__(self, identity: bytes, hello: Hello) -> None:
        self.identity = identity
        self.boot = hello.boot
        self.latest = hello.next_seq - 1
        self.credit = self.latest
        self.owed = hello.unsettled
        self.open: set[int] = set()
        self.settled: dict[int, str] = {}

    def grant(self, window: int) -> int:
        self.credit = max(self.credit, self.latest + window - len(self.open) - self.owed)
        return self.credit


class FakeBroker:
    """The camera's side of a broker, in a thread: welcomes, accepts, settles. A context manager.

    `judge` decides on each frame as it comes; `settle_open` settles what it kept open. `refuse` is a reason to refuse
    every HELLO. What came in is in `frames` (the first send of each), `repeats`, `skips`, `byes` and `hellos`.
    """

    def __init__(
        self,
        endpoint: str,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        window: int = 8,
        max_frame: int = 32 << 20,
        judge: Judge = lambda frame: "complete",
        refuse: str = "",
    ) -> None:
        self.endpoint = endpoint
        self.window = window
        self.max_frame = max_frame
        self.judge = judge
        self.refuse = refuse
        self.epoch = ""
        self.frames: list[Received] = []
        self.repeats: list[Received] = []
        self.skips: list[Skip] = []
        self.byes: list[Bye] = []
        self.hellos: list[Hello] = []
        self._context = context
        self._cameras: dict[str, _Camera] = {}
        self._lock = threading.RLock()
        self._orders: list[Callable[[zmq.Socket[bytes]], None]] = []
        self._thread: threading.Thread | None = None
        self._should_stop = threading.Event()
        self._bound = threading.Event()

    def start(self) -> FakeBroker:
        """Bind, with a new epoch and no memory of the last one's frames."""
        self.epoch = secrets.token_hex(6)
        self._cameras.clear()
        self._should_stop.clear()
        self._bound.clear()
        self._thread = threading.Thread(target=self._run, name="fake broker", daemon=True)
        self._thread.start()
        if not self._bound.wait(10):
            raise TimeoutError(f"the fake broker could not bind {self.endpoint} within 10 s")
        return self

    def stop(self) -> None:
        """Vanish without a word, as a killed broker does."""
        self._should_stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> FakeBroker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def settle_open(self, outcome: str = "complete") -> None:
        """Settle all frames that `judge` kept open."""
        self._order(lambda socket: self._settle_open(socket, outcome))

    def say(self, *segments: bytes) -> None:
        """Send a message to every camera, whatever its bytes are."""
        self._order(lambda socket: self._say(socket, segments))

    # --- the thread --------------------------------------------------------------------------------------------------

    def _order(self, order: Callable[[zmq.Socket[bytes]], None]) -> None:
        with self._lock:
            self._orders.append(order)

    def _run(self) -> None:
        with self._context.socket(zmq.ROUTER) as socket:
            socket.linger = 0
            _bind(socket, self.endpoint)
            self._bound.set()
            while not self._should_stop.is_set():
                if socket.poll(round(_OPEN_FOR * 1000)):
                    identity, *segments = socket.recv_multipart()
                    with self._lock:
                        self._receive(socket, identity, decode_message(segments), segments)
                with self._lock:
                    orders, self._orders = self._orders, []
                    for order in orders:
                        order(socket)

    def _receive(self, socket: zmq.Socket[bytes], identity: bytes, message: Any, segments: list[bytes]) -> None:
        if isinstance(message, Hello):
            self.hellos.append(message)
            self._greet(socket, identity, message)
            return
        key = getattr(message, "key", None)
        name = message.camera if isinstance(message, Bye) else message.key.camera
        camera = self._cameras.get(name)
        if camera is None or camera.identity != identity:
            socket.send_multipart([identity, *encode(Reject(reason="no_hello", key=key))])
        elif isinstance(message, Bye):
            self.byes.append(message)
            del self._cameras[name]
        else:
            camera.latest = max(camera.latest, message.key.seq)
            if isinstance(message, Skip):
                self.skips.append(message)
                self._send(socket, camera, Accepted(boot=camera.boot, seqs=[], credit=camera.grant(self.window)))
            else:
                self._frame(socket, camera, message, segments[2] if len(segments) > 2 else message.payload or b"")

    def _greet(self, socket: zmq.Socket[bytes], identity: bytes, hello: Hello) -> None:
        if self.refuse:
            socket.send_multipart([identity, *encode(Reject(reason=self.refuse, detail=hello.camera))])
            return
        camera = self._cameras.get(hello.camera)
        if camera is None or camera.boot != hello.boot:
            camera = self._cameras[hello.camera] = _Camera(identity, hello)
        camera.identity = identity
        camera.owed = min(camera.owed, hello.unsettled)
        welcome = Welcome(epoch=self.epoch, credit=camera.grant(self.window), max_frame=self.max_frame)
        self._send(socket, camera, welcome)

    def _frame(self, socket: zmq.Socket[bytes], camera: _Camera, frame: Frame, payload: bytes) -> None:
        seq = frame.key.seq
        (self.repeats if frame.again else self.frames).append(Received(frame, payload))
        if frame.again:
            camera.owed = max(0, camera.owed - 1)
        if seq in camera.open or seq in camera.settled:
            if seq in camera.settled:
                self._settle(socket, camera, seq, camera.settled[seq])
            return
        verdict = self.judge(frame)
        if verdict is not None and verdict not in ("complete", "incomplete"):
            self._send(socket, camera, Reject(reason=verdict, key=frame.key))
            return
        camera.open.add(seq)
        self._send(socket, camera, Accepted(boot=camera.boot, seqs=[seq], credit=camera.grant(self.window)))
        if verdict is not None:
            self._settle(socket, camera, seq, verdict)

    def _settle(self, socket: zmq.Socket[bytes], camera: _Camera, seq: int, outcome: str) -> None:
        camera.open.discard(seq)
        camera.settled[seq] = outcome
        credit = camera.grant(self.window)
        complete, incomplete = ([seq], []) if outcome == "complete" else ([], [seq])
        message = Settled(boot=camera.boot, complete=complete, incomplete=incomplete, credit=credit)
        self._send(socket, camera, message)

    def _settle_open(self, socket: zmq.Socket[bytes], outcome: str) -> None:
        for camera in self._cameras.values():
            for seq in sorted(camera.open):
                self._settle(socket, camera, seq, outcome)

    def _say(self, socket: zmq.Socket[bytes], segments: Sequence[bytes]) -> None:
        for camera in self._cameras.values():
            socket.send_multipart([camera.identity, *segments])

    def _send(self, socket: zmq.Socket[bytes], camera: _Camera, message: Message) -> None:
        socket.send_multipart([camera.identity, *encode(message)])


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind, with patience for the address of a broker that has just been closed: libzmq frees it in its own thread."""
    patience = threading.Event()
    for _ in range(100):
        try:
            socket.bind(endpoint)
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            patience.wait(0.05)
    socket.bind(endpoint)


class FakeCapture:
    """A capture device with `cv2.VideoCapture`'s methods: it gives `frames` pictures, then its stream is cut.

    `opens` false: it does not open at all. Each picture is filled with its number, so that a test can tell them apart.
    """

    def __init__(self, frames: int = 10, *, opens: bool = True, shape: tuple[int, int, int] = (24, 32, 3)) -> None:
        self.frames = frames
        self.opens = opens
        self.shape = shape
        self.reads = 0
        self.released = False

    def isOpened(self) -> bool:
        return self.opens and not self.released

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        if not self.isOpened() or self.reads >= self.frames:
            return False, None
        self.reads += 1
        return True, np.full(self.shape, (self.reads - 1) % 256, np.uint8)

    def release(self) -> None:
        self.released = True
