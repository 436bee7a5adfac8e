"""Lean cameras: they speak the whole protocol of an `inspect` camera, but their pictures are one prepared buffer.

The real client (`clients.camera`) keeps every picture until it is settled; here only counts are kept, so that the load
generator takes as little as possible of the processors that the broker needs.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import zmq
from msgspec import Struct

from broker import curve
from broker.curve import Credentials
from broker.wire import (
    COPY_THRESHOLD,
    PROTOCOL,
    Accepted,
    Bye,
    Encoding,
    Frame,
    Hello,
    Key,
    Reject,
    Settled,
    Welcome,
    decode_message,
    encode,
)
from ops.bench.board import Board, Slot
from ops.bench.stream import BURST, STAMP, open_context

_HELLO_SECONDS = 0.5


class Cameras(Struct, frozen=True, kw_only=True, tag=True):
    """Cameras `names`, each with at most `window` unsettled frames; `rate` frames/s each (0: as fast as credit).

    The payload is `size` zeros, or the pictures in `files` one after the other. Zeros sent at a rate begin with the
    time of sending.
    """

    frontend: str
    names: list[str]
    window: int
    size: int
    io_threads: int
    encoding: Encoding = "mono8"
    shape: list[int]
    files: list[str] = []
    budget: float = 5.0
    rate: float = 0.0
    credentials: Credentials | None = None

    def run(self, board: Board) -> None:
        """Send until the board says stop, wait for what is unsettled, say BYE."""
        with open_context(self.io_threads) as context, ExitStack() as stack:
            cameras = [_Camera(self, name, stack.enter_context(context.socket(zmq.DEALER))) for name in self.names]
            poller = zmq.Poller()
            for camera in cameras:
                camera.start()
                poller.register(camera.socket, zmq.POLLIN)
            while not board.sources_stopped:
                sent = sum(camera.send(board) for camera in cameras)
                readable = dict(poller.poll(0 if sent else self._idle_ms()))
                for camera in cameras:
                    if camera.socket in readable:
                        camera.take(board)
            for camera in cameras:
                camera.finish(board)

    def _idle_ms(self) -> int:
        return 1 if self.rate else 20

    def payloads(self) -> list[bytes | bytearray]:
        """What is sent, in turn. A few buffers where each is stamped, since libzmq may still read the one sent last."""
        if self.files:
            return [Path(file).read_bytes() for file in self.files]
        return [bytearray(self.size) for _ in range(16)] if self.rate else [bytes(self.size)]


class _Camera:
    """One camera: its socket, and what it knows of its frames."""

    def __init__(self, cameras: Cameras, name: str, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._settings = cameras
        self._name = name
        self._boot = secrets.token_hex(6)
        self._payloads = cycle(cameras.payloads())
        self._stamped = bool(cameras.rate) and not cameras.files
        self._epoch = ""
        self._credit = -1
        self._next = 0
        self._unsettled = 0
        self._due = time.monotonic()
        self._hello_due = 0.0

    def start(self) -> None:
        self.socket.sndhwm = self._settings.window + 16
        self.socket.rcvhwm = 0
        curve.call(self.socket, self._settings.frontend, self._settings.credentials)
        self.socket.connect(self._settings.frontend)

    def send(self, board: Board) -> int:
        """Send what credit, window and rate allow, at most a burst; returns how many frames."""
        now = time.monotonic()
        self._greet(now)
        for sent in range(BURST):
            if self._next > self._credit or self._unsettled >= self._settings.window:
                return self._count(board, sent)
            if self._settings.rate:
                if now < self._due:
                    return self._count(board, sent)
                self._due = max(self._due + 1 / self._settings.rate, now)
            if not self._send_frame():
                return self._count(board, sent)
        return self._count(board, BURST)

    def take(self, board: Board) -> None:
        """Take all that the broker has said."""
        while True:
            try:
                message = decode_message(self.socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            self._handle(message, board)

    def finish(self, board: Board) -> None:
        """Wait until all is settled, or the board says that all is over, and say BYE."""
        while self._unsettled and not board.stopped:
            if self.socket.poll(50):
                self.take(board)
        self.socket.linger = 500
        self.socket.send_multipart(
            encode(Bye(camera=self._name, boot=self._boot, last_seq=self._next - 1)), zmq.NOBLOCK
        )

    def _handle(self, message: object, board: Board) -> None:
        match message:
            case Settled():
                done = len(message.complete) + len(message.incomplete)
                self._unsettled -= done
                self._credit = max(self._credit, message.credit)
                board.counts[Slot.COMPLETE] += len(message.complete)
                board.counts[Slot.INCOMPLETE] += len(message.incomplete)
            case Accepted():
                self._credit = max(self._credit, message.credit)
                board.counts[Slot.ACCEPTED] += len(message.seqs)
            case Welcome():
                # A second epoch would mean frames to send again, which a lean camera has not kept: count it as lost.
                board.counts[Slot.REPEATED] += bool(self._epoch) and message.epoch != self._epoch
                self._epoch = message.epoch
                self._credit = max(self._credit, message.credit)
            case Reject():
                board.counts[Slot.REJECTED] += 1
                self._unsettled -= message.key is not None

    def _greet(self, now: float) -> None:
        if now >= self._hello_due:
            self._hello_due = now + _HELLO_SECONDS
            self.socket.send_multipart(encode(Hello(camera=self._name, boot=self._boot, protocol=PROTOCOL)))

    def _send_frame(self) -> bool:
        payload = next(self._payloads)
        if self._stamped:
            assert isinstance(payload, bytearray)
            STAMP.pack_into(payload, 0, time.monotonic())
        frame = Frame(
            key=Key(self._name, self._boot, self._next),
            policy="inspect",
            encoding=self._settings.encoding,
            shape=self._settings.shape,
            len=len(payload),
            age=0.0,
            budget=self._settings.budget,
        )
        kind, header = encode(frame)
        try:
            self.socket.send(kind, zmq.NOBLOCK | zmq.SNDMORE)
        except zmq.Again:
            return False
        self.socket.send(header, zmq.NOBLOCK | zmq.SNDMORE)
        self.socket.send(payload, zmq.NOBLOCK, copy=len(payload) < COPY_THRESHOLD)
        self._next += 1
        self._unsettled += 1
        return True

    def _count(self, board: Board, sent: int) -> int:
        board.counts[Slot.SENT] += sent
        return sent
