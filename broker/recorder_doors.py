"""The recorder's sockets: copies from the broker, the join's live stream and catch-up, the ROUTER for pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final, Self

import zmq

from broker import curve, wire
from broker.curve import Credentials
from broker.gallery import Counts
from broker.gate import Gate, guarded
from broker.inquiry import Inquiry
from broker.keepalive import keep_alive
from broker.redial import keep_trying
from broker.socket_monitor import SocketMonitor

Context = zmq.Context[zmq.Socket[bytes]]

#: Copies that wait in front of the recorder; the broker drops what comes on top of them.
COPIES_WAITING: Final = 8
#: Verdicts that wait in front of it; those on top of them are lost to it, and asked for again.
LIVE_WAITING: Final = 10_000
#: Pictures that wait for one consumer that asked for them.
PICTURES_WAITING: Final = 16


class RecorderDoors:
    """Opened and closed, as a context manager, by the thread that uses them. Nothing here waits but `wait`."""

    copies: zmq.Socket[bytes]
    live: zmq.Socket[bytes]
    pictures: zmq.Socket[bytes]

    def __init__(
        self,
        copies: str,
        live: str,
        catchup: str,
        pictures: str,
        context: Context | None,
        counts: Counts,
        gate: Gate | None = None,
        broker: Credentials | None = None,
        join: Credentials | None = None,
    ) -> None:
        self._endpoints = copies, live, pictures
        self._context = context
        self._gate = gate
        self._broker = broker
        self._join = join
        self.inquiry = Inquiry(catchup, counts, join)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._open()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def tells_of_connections(self) -> bool:
        """Whether `connections` will: over inproc nobody does."""
        return self._monitor.pair is not None

    def wait(self, milliseconds: int) -> None:
        """Until a message comes, at most so long."""
        self._poller.poll(milliseconds)

    def connections(self) -> Iterator[Any]:
        """One for each connection to the live stream that came to be since."""
        return self._monitor.events()

    def _open(self) -> None:
        copies, live, pictures = self._endpoints
        context = self._context or self._stack.enter_context(zmq.Context())
        self._poller = zmq.Poller()
        self._open_pictures(context, pictures)
        self.copies = self._stack.enter_context(context.socket(zmq.PULL))
        self.copies.setsockopt(zmq.RCVHWM, COPIES_WAITING)
        self._connect(self.copies, copies, self._broker)
        self.live = self._stack.enter_context(context.socket(zmq.SUB))
        self.live.setsockopt(zmq.RCVHWM, LIVE_WAITING)
        self.live.subscribe(b"frame/")
        self._monitor = SocketMonitor(self.live, live, zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._stack.callback(self._monitor.close)
        self._monitor.open()
        self._connect(self.live, live, self._join)
        for socket in (self.copies, self.live, self.pictures, self._monitor.pair):
            if socket is not None:
                self._poller.register(socket, zmq.POLLIN)
        self._stack.callback(self.inquiry.close)
        self.inquiry.open(context, self._poller)

    def _open_pictures(self, context: Context, endpoint: str) -> None:
        self.pictures = self._stack.enter_context(context.socket(zmq.ROUTER))
        if self._gate is not None:  # after the door, for it closes before it
            self._stack.callback(self._gate.close)
            self._gate.open(context)
        self.pictures.setsockopt(zmq.LINGER, 0)
        self.pictures.setsockopt(zmq.SNDHWM, PICTURES_WAITING)
        self.pictures.setsockopt(zmq.MAXMSGSIZE, wire.HEADER_LIMIT)
        self.pictures.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        keep_alive(self.pictures)
        guarded(self._gate, self.pictures, endpoint, "pictures")
        self.pictures.bind(endpoint)
        if self._gate is not None:
            self._gate.watch(self._poller)

    def _connect(self, socket: zmq.Socket[bytes], endpoint: str, credentials: Credentials | None) -> None:
        keep_trying(socket)
        curve.call(socket, endpoint, credentials)
        socket.connect(endpoint)
