"""The baselines: plain PUSH senders, `zmq.proxy` between them, and PULL consumers, without any protocol of ours.

Their messages have the three segments of a FRAME, so that libzmq does the same work as for the real broker.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import zmq
from msgspec import Struct

from broker.wire import COPY_THRESHOLD, Frame, Key, encode
from ops.bench.board import Board, Slot
from workers import heap

#: Messages taken from, or put on, one socket before the next one has its turn.
BURST = 64
#: The send time, `time.monotonic()` in seconds (one clock for all processes of a host): a payload's first bytes.
STAMP = struct.Struct("=d")
_STAMPED_PAYLOADS = 16


class Sender(Struct, frozen=True, kw_only=True, tag=True):
    """`sockets` PUSH sockets that send `size`-byte payloads: as fast as taken, or `rate` a second in all, stamped."""

    endpoint: str
    size: int
    sockets: int
    hwm: int
    io_threads: int
    rate: float = 0.0

    def run(self, board: Board) -> None:
        """Send until the board says stop."""
        with open_context(self.io_threads) as context, ExitStack() as stack:
            sockets = [stack.enter_context(context.socket(zmq.PUSH)) for _ in range(self.sockets)]
            for socket in sockets:
                socket.sndhwm = self.hwm
                socket.connect(self.endpoint)
            self._send_paced(sockets[0], board) if self.rate else self._send_all(sockets, board)

    def _send_all(self, sockets: list[zmq.Socket[bytes]], board: Board) -> None:
        head, payload, copy = _example_head(self.size), bytes(self.size), self.size < COPY_THRESHOLD
        poller = zmq.Poller()
        for socket in sockets:
            poller.register(socket, zmq.POLLOUT)
        while not board.sources_stopped:
            sent = sum(_send_burst(socket, head, payload, copy) for socket in sockets)
            board.counts[Slot.SENT] += sent
            if not sent:
                poller.poll(50)

    def _send_paced(self, socket: zmq.Socket[bytes], board: Board) -> None:
        head, copy = _example_head(self.size), self.size < COPY_THRESHOLD
        payloads = stamped_payloads(self.size)
        for _ in paced(self.rate, board):
            send_payload(socket, head, next(payloads), copy, flags=0)
            board.counts[Slot.SENT] += 1


class Proxy(Struct, frozen=True, kw_only=True, tag=True):
    """`zmq.proxy` from a PULL to a PUSH; it ends when its process is ended."""

    frontend: str
    backend: str
    hwm: int
    io_threads: int

    def run(self, board: Board) -> None:
        """Forward for ever (the board is not looked at: libzmq's loop is the thing measured)."""
        with open_context(self.io_threads) as context:
            front, back = context.socket(zmq.PULL), context.socket(zmq.PUSH)
            front.rcvhwm = back.sndhwm = self.hwm
            front.bind(self.frontend)
            back.bind(self.backend)
            zmq.proxy(front, back)


class Puller(Struct, frozen=True, kw_only=True, tag=True):
    """A PULL that counts; with `timed` it also keeps the age of each payload."""

    endpoint: str
    bind: bool
    size: int
    hwm: int
    io_threads: int
    timed: bool = False

    def run(self, board: Board) -> None:
        """Receive until the board says stop."""
        heap.keep()
        with open_context(self.io_threads) as context, context.socket(zmq.PULL) as socket:
            socket.rcvhwm = self.hwm
            (socket.bind if self.bind else socket.connect)(self.endpoint)
            while not board.stopped:
                if socket.poll(50):
                    board.counts[Slot.RECEIVED] += self._take_burst(socket, board)

    def _take_burst(self, socket: zmq.Socket[bytes], board: Board) -> int:
        copy = self.size < COPY_THRESHOLD
        for taken in range(BURST):
            try:
                socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return taken
            socket.recv()
            payload = socket.recv(copy=copy)
            if self.timed:
                board.add_latency(age_of(payload))
        return BURST


@contextmanager
def open_context(io_threads: int) -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A context whose sockets drop at once what nobody took (linger 0)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads)
    context.linger = 0
    try:
        yield context
    finally:
        context.destroy(linger=0)


def send_payload(
    socket: zmq.Socket[bytes], head: list[bytes], payload: bytes | bytearray, copy: bool, flags: int = zmq.NOBLOCK
) -> None:
    """Send `head` (two segments) and `payload`, the latter uncopied unless `copy`; raises zmq.Again at the mark."""
    socket.send(head[0], flags | zmq.SNDMORE)
    socket.send(head[1], flags | zmq.SNDMORE)
    socket.send(payload, flags, copy=copy)


def paced(rate: float, board: Board) -> Iterator[None]:
    """Yield `rate` times a second until the board says stop; a turn that was missed is not made up for."""
    due = time.monotonic()
    while not board.sources_stopped:
        time.sleep(max(0.0, due - time.monotonic()))
        yield
        due = max(due + 1 / rate, time.monotonic())


def stamped_payloads(size: int) -> Iterator[bytearray]:
    """Payloads whose first bytes are the time of their being handed out.

    A few buffers go round, since libzmq may still read the one sent last.
    """
    payloads = [bytearray(size) for _ in range(_STAMPED_PAYLOADS)]
    while True:
        for payload in payloads:
            STAMP.pack_into(payload, 0, time.monotonic())
            yield payload


def age_of(payload: bytes | zmq.Frame) -> float:
    """Seconds since a stamped payload was sent."""
    buffer = payload.buffer if isinstance(payload, zmq.Frame) else payload
    sent: float = STAMP.unpack_from(buffer)[0]
    return time.monotonic() - sent


def _example_head(size: int) -> list[bytes]:
    key = Key("camera-0", "0123456789ab", 1000)
    return encode(Frame(key=key, policy="inspect", encoding="jpeg", shape=[1, size], len=size, age=0.0, budget=5.0))


def _send_burst(socket: zmq.Socket[bytes], head: list[bytes], payload: bytes, copy: bool) -> int:
    for sent in range(BURST):
        try:
            send_payload(socket, head, payload, copy)
        except zmq.Again:
            return sent
    return BURST
