"""Lean cameras: they speak the whole protocol of a camera, but their pictures are one prepared buffer.

The real client (`clients.camera`) keeps every picture until it is settled; here only counts are kept, so that the load
generator takes as little as possible of the processors that the broker needs.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
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
    Policy,
    Reject,
    Settled,
    Skip,
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
    time of sending. `rates` and `shapes`: of each camera, where they differ; a picture then has its shape's size.
    `live`: a picture without credit is skipped, and the broker told; else it waits. `timed`: keep the seconds from
    sending to SETTLED.
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
    policy: Policy = "inspect"
    live: bool = False
    timed: bool = False
    rates: list[float] = []
    shapes: list[list[int]] = []
    credentials: Credentials | None = None

    def run(self, board: Board) -> None:
        """Send until the board says stop, wait for what is unsettled, say BYE."""
        with open_context(self.io_threads) as context, ExitStack() as stack:
            cameras = [
                _Camera(self, number, stack.enter_context(context.socket(zmq.DEALER)))
                for number in range(len(self.names))
            ]
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
        return 1 if self.rate or self.rates else 20

    def shape_of(self, number: int) -> list[int]:
        return self.shapes[number] if self.shapes else self.shape

    def payloads(self, number: int = 0) -> list[bytes | bytearray]:
        """What is sent, in turn. A few buffers where each is stamped, since libzmq may still read the one sent last."""
        if self.files:
            return [Path(file).read_bytes() for file in self.files]
        if self.shapes:
            return [bytes(math.prod(self.shapes[number]))]
        return [bytearray(self.size) for _ in range(16)] if self.rate else [bytes(self.size)]


class _Camera:
    """One camera: its socket, and what it knows of its frames."""

    def __init__(self, cameras: Cameras, number: int, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._settings = cameras
        self._name = cameras.names[number]
        self._boot = secrets.token_hex(6)
        self._rate = cameras.rates[number] if cameras.rates else cameras.rate
        self._shape = cameras.shape_of(number)
        self._payloads = cycle(cameras.payloads(number))
        self._stamped = bool(cameras.rate) and not cameras.files and not cameras.shapes
        self._epoch = ""
        self._credit = -1
        self._next = 0
        self._unsettled = 0
        self._unaccepted = 0
        self._unseen: deque[int] = deque()  # skips that the broker had not seen at its last word
        self._sent: dict[int, tuple[float, int]] = {}  # unsettled seq -> when it was sent, bytes
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
        if not self._epoch:
            self._due = now
            return 0
        for sent in range(BURST):
            if self._rate and now < self._due:
                return self._count(board, sent)
            if not self._may_send():
                self._miss(now, board)
                return self._count(board, sent)
            if not self._send_frame(now, board):
                return self._count(board, sent)
            if self._rate:
                self._due += 1 / self._rate
                if not self._settings.live:  # what was late is not made up for
                    self._due = max(self._due, now)
        return self._count(board, BURST)

    def _may_send(self) -> bool:
        if self._settings.policy == "monitor" and self._unaccepted:
            return False
        return self._next <= self._credit and self._unsettled < self._settings.window

    def _miss(self, now: float, board: Board) -> None:
        """There is a picture and no credit: a live camera skips it, a monitor has a newer one before it can send."""
        monitor = self._settings.policy == "monitor"
        if not self._rate or not (monitor or self._settings.live):
            return
        while self._due + (1 / self._rate if monitor else 0.0) <= now:
            if not monitor and not self._skip():
                return
            self._due += 1 / self._rate
            board.counts[Slot.SKIPPED] += 1

    def _skip(self) -> bool:
        key = Key(self._name, self._boot, self._next)
        try:
            self.socket.send_multipart(encode(Skip(key=key, reason="no_credit")), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._unseen.append(self._next)
        self._credit += 1
        self._next += 1
        return True

    def _allow(self, credit: int, seen: int | None) -> None:
        """Each skip that the broker had not seen when it said so used up a seq, and no room for a frame."""
        while self._unseen and self._unseen[0] <= (seen or 0):
            self._unseen.popleft()
        self._credit = max(self._credit, credit + len(self._unseen))

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
                self._settle([*message.complete, *message.incomplete], board)
                self._allow(message.credit, message.seen)
                board.counts[Slot.COMPLETE] += len(message.complete)
                board.counts[Slot.INCOMPLETE] += len(message.incomplete)
            case Accepted():
                self._allow(message.credit, message.seen)
                self._unaccepted -= len(message.seqs)
                board.counts[Slot.ACCEPTED] += len(message.seqs)
            case Welcome():
                # A second epoch would mean frames to send again, which a lean camera has not kept: count it as lost.
                board.counts[Slot.REPEATED] += bool(self._epoch) and message.epoch != self._epoch
                self._epoch = message.epoch
                self._allow(message.credit, message.seen)
            case Reject():
                board.counts[Slot.REJECTED] += 1
                if message.key is not None:
                    self._unaccepted -= 1
                    self._settle([message.key.seq], board, count=False)

    def _settle(self, seqs: list[int], board: Board, count: bool = True) -> None:
        now = time.monotonic()
        for sent_at, size in [self._sent.pop(seq) for seq in seqs if seq in self._sent]:
            self._unsettled -= 1
            board.counts[Slot.HELD_BYTES] -= size
            if self._settings.timed and count:
                board.add_latency(now - sent_at)

    def _greet(self, now: float) -> None:
        if now >= self._hello_due:
            self._hello_due = now + _HELLO_SECONDS
            self.socket.send_multipart(encode(self._hello()))

    def _hello(self) -> Hello:
        return Hello(camera=self._name, boot=self._boot, protocol=PROTOCOL, policy=self._settings.policy)

    def _send_frame(self, now: float, board: Board) -> bool:
        payload = next(self._payloads)
        if self._stamped:
            assert isinstance(payload, bytearray)
            STAMP.pack_into(payload, 0, time.monotonic())
        frame = Frame(
            key=Key(self._name, self._boot, self._next),
            policy=self._settings.policy,
            encoding=self._settings.encoding,
            shape=self._shape,
            len=len(payload),
            age=max(0.0, now - self._due) if self._rate else 0.0,
            budget=self._settings.budget,
        )
        kind, header = encode(frame)
        try:
            self.socket.send(kind, zmq.NOBLOCK | zmq.SNDMORE)
        except zmq.Again:
            return False
        self.socket.send(header, zmq.NOBLOCK | zmq.SNDMORE)
        self.socket.send(payload, zmq.NOBLOCK, copy=len(payload) < COPY_THRESHOLD)
        self._sent[self._next] = (now, len(payload))
        self._next += 1
        self._unsettled += 1
        self._unaccepted += 1
        board.counts[Slot.HELD_BYTES] += len(payload)
        return True

    def _count(self, board: Board, sent: int) -> int:
        board.counts[Slot.SENT] += sent
        return sent
