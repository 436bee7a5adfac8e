"""The broker's sockets: the bound ones, and a PUSH per session with its monitor."""

from __future__ import annotations

import math
import socket as system_socket
import time
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import zmq
import zmq.backend

from broker import curve
from broker.gate import Gate, guarded
from broker.keepalive import keep_alive
from broker.line import Line
from broker.roster import Session
from broker.security import session_door
from broker.socket_monitor import SocketMonitor
from broker.wire import BATCH_LIMIT, HEADER_LIMIT, data_endpoint

#: Threads of libzmq that move bytes: while one copies a payload in, another copies one out. From 1 MB on a second one
#: is worth up to 1.9 times the frames where cores are free, and costs nothing where they are not (docs/benchmarks.md).
IO_THREADS: Final = 2
#: Messages in a session's socket at most, beyond twice what it grants. Not the flow control, which is credit: libzmq
#: refuses well below the mark, so it must stay far above the window.
SESSION_HWM: Final = 64
#: Seconds between two looks for peers of sockets that have none yet: each costs a call per socket.
LOOK_EVERY: Final = 0.002
#: Seconds within which a socket says that it has no peer, once its monitor has said that somebody hung up.
DOUBT: Final = 0.05
#: Copies for the recorder that may wait; more are dropped and counted.
COPIES_HWM: Final = 16
#: Messages that a camera may have in the broker's receive queue; its credit bounds it, this is the second fence.
FRONTEND_HWM: Final = 64

Socket = zmq.Socket[bytes]
#: The socket's own `get` without the convenience around it, and numbers in the place of enums: a third of the time.
_get: Final = zmq.backend.Socket.get
_EVENTS: Final = int(zmq.EVENTS)
_POLLOUT: Final = int(zmq.POLLOUT)


class Doors:
    """Opens, polls and closes every socket of the broker, all in one thread."""

    frontend: Socket
    backend: Socket
    egress: Socket
    control: Socket
    copies: Socket

    def __init__(self, line: Line, context: zmq.Context[Socket] | None, gate: Gate | None = None) -> None:
        self._line = line
        self._gate = gate
        self._endpoints = line.endpoints
        self._shared = context
        self._context: zmq.Context[Socket] | None = None
        self._poller = zmq.Poller()
        self._sockets: list[Socket] = []
        self._ports: dict[Session, int] = {}  # ports in use
        self._monitors: dict[Session, SocketMonitor] = {}
        self._next = count()
        self.doubtful: dict[Session, float] = {}  # somebody hung up on their port; looked at until this instant
        self.opening: dict[Session, None] = {}  # whose PUSH has no peer yet, oldest first
        self._look_at = 0.0  # when to look whether they have one

    # --- the bound sockets -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Bind all endpoints. Raises zmq.ZMQError (EADDRINUSE and others) naming the endpoint."""
        self._context = self._shared or zmq.Context(IO_THREADS)
        if self._gate is not None:
            self._gate.open(self._context)
        limits = self._line.limits
        self.frontend = self._bind(zmq.ROUTER, "frontend", limits.max_frame + HEADER_LIMIT)
        self.backend = self._bind(zmq.ROUTER, "backend", BATCH_LIMIT)
        self.egress = self._bind(zmq.ROUTER, "egress", BATCH_LIMIT)
        self.control = self._bind(zmq.ROUTER, "control", BATCH_LIMIT)
        self.copies = self._bind(zmq.PUSH, "copies", HEADER_LIMIT)
        for socket in (self.frontend, self.backend, self.egress, self.control):
            self._poller.register(socket, zmq.POLLIN)
        if self._gate is not None:
            self._gate.watch(self._poller)

    def _socket(self, kind: int, most: int) -> Socket:
        assert self._context is not None
        socket = self._context.socket(kind)
        self._sockets.append(socket)
        socket.linger = 0
        socket.maxmsgsize = most
        socket.handshake_ivl = 2000
        keep_alive(socket)
        return socket

    def _bind(self, kind: int, door: str, most: int) -> Socket:
        endpoint: str = getattr(self._endpoints, door)
        socket = self._socket(kind, most)
        if kind == zmq.ROUTER:
            socket.router_mandatory = True
        if kind == zmq.PUSH:
            socket.sndhwm = COPIES_HWM
        if door == "frontend":
            socket.rcvhwm = FRONTEND_HWM
        guarded(self._gate, socket, endpoint, door)
        try:
            if ipc_in_use(endpoint):
                raise zmq.ZMQError(zmq.EADDRINUSE)
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise zmq.ZMQError(
                error.errno, f"{error.strerror}: can not bind {endpoint}; is another broker running?"
            ) from None
        return socket

    def poll(self, seconds: float) -> dict[Any, int]:
        """Wait for messages; whole milliseconds, rounded up, so that a deadline has passed when it was waited for."""
        return dict(self._poller.poll(math.ceil(seconds * 1000)))

    def close(self) -> None:
        """What watches a socket ends before the socket does, so that no thread of libzmq waits for its reader."""
        for session in list(self._ports):
            self.close_session(session)
        if self._gate is not None:
            self._gate.close()
        for socket in self._sockets:
            socket.close(0)
        self._sockets.clear()
        if self._context is not None and self._shared is None:
            self._context.term()
        self._context = None

    # --- sessions ----------------------------------------------------------------------------------------------------

    def open_session(self, session: Session, key: str = "") -> int:
        """Bind the session's PUSH on a free number; once, whoever asks again is told the same number. With a gate, only
        the worker with the public key `key` is let in there."""
        if session.socket is not None:
            return self._ports[session]
        socket = self._socket(zmq.PUSH, HEADER_LIMIT)  # of what a peer sends: nobody may send here at all
        socket.sndhwm = SESSION_HWM + 2 * session.grant
        if self._gate is not None and self._gate.guards(self.backend):
            self._gate.passing_door(socket, self._endpoints.backend, session_door(key))
        else:
            curve.plain(socket, self._endpoints.backend)
        try:
            port = self._bind_free(socket)
        except zmq.ZMQError:
            self._sockets.remove(socket)
            socket.close(0)
            raise
        monitor = self._monitors[session] = SocketMonitor(socket, self._endpoints.backend, zmq.EVENT_DISCONNECTED)
        monitor.open()
        if monitor.pair is not None:
            self._poller.register(monitor.pair, zmq.POLLIN)
        session.socket = socket
        self._ports[session] = port
        self.opening[session] = None
        return port

    def _bind_free(self, socket: Socket) -> int:
        low, high = self._endpoints.sessions
        used = set(self._ports.values())
        for _ in range(high - low + 1):
            port = low + next(self._next) % (high - low + 1)
            if port in used:
                continue
            try:
                socket.bind(data_endpoint(self._endpoints.backend, port))
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise
            else:
                return port
        raise zmq.ZMQError(zmq.EADDRINUSE, f"no port of {low}-{high} is free (endpoints.sessions)")

    def close_session(self, session: Session) -> None:
        """Close its PUSH; what was queued there is discarded: the router knows what it was."""
        socket: Socket | None = session.socket
        self.opening.pop(session, None)
        self.doubtful.pop(session, None)
        self._ports.pop(session, None)
        if socket is None:
            return
        monitor = self._monitors.pop(session)
        if monitor.pair is not None:
            self._poller.unregister(monitor.pair)
        monitor.close()
        session.socket = None
        self._sockets.remove(socket)
        socket.close(0)

    def just_connected(self) -> Iterator[Session]:
        """Sessions whose PUSH has a peer now: it polls writable. Looked for every `LOOK_EVERY` seconds at most."""
        now = time.monotonic()
        if not self.opening or now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        for session in list(self.opening):
            if _writable(session.socket):
                del self.opening[session]
                yield session

    def disconnected(self, active: dict[Any, int]) -> Iterator[Session]:
        """Sessions whose peer hung up, on tcp and ipc: faster than missing its beats.

        Whoever connects to the port and leaves is reported as well; a session that still has its peer is writable.
        """
        for session, monitor in self._monitors.items():
            if monitor.pair in active and list(monitor.events()):
                self.doubtful[session] = time.monotonic() + DOUBT
        for session, until in list(self.doubtful.items()):
            gone = session.socket is not None and session not in self.opening and not _writable(session.socket)
            if gone or time.monotonic() > until:
                del self.doubtful[session]
            if gone:
                yield session


def _writable(socket: Socket) -> bool:
    return bool(int(_get(socket, _EVENTS)) & _POLLOUT)


def ipc_in_use(endpoint: str) -> bool:
    """Whether somebody listens on this ipc endpoint: libzmq would take its file away without a word."""
    scheme, _, path = endpoint.partition("://")
    if scheme != "ipc" or not hasattr(system_socket, "AF_UNIX"):
        return False
    with system_socket.socket(system_socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            return False
        return True
