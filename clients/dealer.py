"""A camera's DEALER socket and the monitor that tells when its connection breaks. One thread uses all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import zmq

from broker import curve
from broker.curve import Credentials
from broker.redial import keep_trying
from broker.socket_monitor import SocketMonitor
from broker.wire import COPY_THRESHOLD, encode
from clients.held import Outgoing

#: Messages taken in one turn at most.
BURST: Final = 256
#: Seconds that BYE may take to leave after the socket is closed.
LINGER: Final = 1.0
_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
#: Messages that may wait in the socket besides the frames held: beats and skips.
SPARE: Final = 256

Context = zmq.Context[zmq.Socket[bytes]]


class Dealer:
    """Connects to `endpoint`, again and again. `frames`: how many frames may wait in the socket at most."""

    _socket: zmq.Socket[bytes]
    _monitor: SocketMonitor

    def __init__(self, endpoint: str, context: Context, frames: int, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        self.endpoint = endpoint
        self._context = context
        self._frames = frames
        self._poller = zmq.Poller()
        self.blocked = False  # the last send found no connection, or a full socket
        self._connected = False
        self._torn = False  # the connection broke in the middle of a message

    def connect(self, wake: Any) -> None:
        """Open the socket; `poll` will watch the file descriptor of `wake` too. Raises zmq.ZMQError."""
        self._poller.register(wake, zmq.POLLIN)
        self._open()

    def _open(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        # inproc has no connection events and never reconnects: see `revive`.
        self._monitor = SocketMonitor(self._socket, self.endpoint, _EVENTS)
        try:
            self._configure(self._socket)
            curve.call(self._socket, self.endpoint, self._credentials)
            self._monitor.open()
            self._socket.connect(self.endpoint)
        except zmq.ZMQError:
            self.close(0.0)
            raise
        self._poller.register(self._socket, zmq.POLLIN)
        if self._monitor.pair is not None:
            self._poller.register(self._monitor.pair, zmq.POLLIN)
        self.blocked = False
        self._connected = self._monitor.pair is None

    def _configure(self, socket: zmq.Socket[bytes]) -> None:
        socket.linger = 0
        socket.sndhwm = self._frames + SPARE
        keep_trying(socket)

    def poll(self, seconds: float) -> None:
        """Wait for anything to do, at most so long."""
        self._poller.poll(math.ceil(seconds * 1000))

    def receive(self) -> Iterator[list[bytes]]:
        """The messages that are here, a burst at most."""
        for _ in range(BURST):
            try:
                yield self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return

    def send(self, outgoing: Outgoing) -> bool:
        """Send, without a copy of large payloads. False: not now; `poll` returns when it is worth another try.

        Without a connection nothing is sent: it would arrive later, with the age that it had here. (ZMQ_IMMEDIATE says
        the same to libzmq, which then aborts the process when a connection breaks while a message is read: 4.3.5.)
        A connection that breaks between two segments leaves libzmq with half a message: then `revive` is due.
        """
        if not self._connected:
            self.blocked = True
            return False
        message, payload = outgoing
        kind, header = encode(message)
        try:
            self._socket.send(kind, zmq.NOBLOCK | zmq.SNDMORE)
        except zmq.Again:
            self._watch_output(True)
            return False
        try:
            if payload is None:
                self._socket.send(header, zmq.NOBLOCK)
            else:
                self._socket.send(header, zmq.NOBLOCK | zmq.SNDMORE)
                self._socket.send(payload, zmq.NOBLOCK, copy=len(payload) < COPY_THRESHOLD)
        except zmq.Again:
            self._torn = True
            return False
        self._watch_output(False)
        return True

    def _watch_output(self, blocked: bool) -> None:
        if blocked != self.blocked:
            self.blocked = blocked
            self._poller.modify(self._socket, zmq.POLLIN | zmq.POLLOUT if blocked else zmq.POLLIN)

    def disconnected(self) -> bool:
        """Whether the connection broke since the last call. Then a new socket has taken the place of the old one, with
        which all that still waited there is gone."""
        for event in self._monitor.events():
            if event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected, self.blocked = True, False
            elif self._connected:
                self._renew()
                return True
        return False

    def revive(self) -> bool:
        """Take a new socket after a send that failed half way, or failed over inproc, whose broken connections stay
        broken. True: done."""
        if not self._torn and not (self.blocked and self._monitor.pair is None):
            return False
        self._renew()
        return True

    def _renew(self) -> None:
        self._torn = False
        self._poller.unregister(self._socket)
        if self._monitor.pair is not None:
            self._poller.unregister(self._monitor.pair)
        self.close(0.0)
        self._open()

    def close(self, linger: float = LINGER) -> None:
        self._monitor.close()
        self._socket.close(round(linger * 1000))
