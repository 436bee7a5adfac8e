"""What libzmq says of a socket's connections: made, broken, refused. Read by whoever uses the socket, in its thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

#: Events that one call takes at most: strangers who knock without end keep nobody busy for ever.
BURST: Final = 256


class Event(NamedTuple):
    """`kind`: one of zmq's EVENT_ numbers; `endpoint`: of the connection, where the socket was bound its own; `value`:
    its file descriptor (on Windows its SOCKET), or an error's number."""

    kind: int
    endpoint: str
    value: int


class SocketMonitor:
    """The events of `socket`, of the kinds in `events` (a mask). Open it before the socket binds or connects.

    libzmq's own thread waits for whoever does not read them: call `events` in every turn. `endpoint`: over inproc there
    are none, and nothing is opened.
    """

    def __init__(self, socket: zmq.Socket[Any], endpoint: str, events: int) -> None:
        self._socket = socket
        self._events = events
        self._silent = endpoint.startswith("inproc:")
        #: To be polled; None while it is closed, and over inproc.
        self.pair: zmq.Socket[Any] | None = None

    def open(self) -> None:
        """Raises zmq.ZMQError."""
        if not self._silent:
            self.pair = self._socket.get_monitor_socket(self._events)

    def events(self) -> Iterator[Event]:
        """What has happened since the last call, `BURST` events at most; the rest is the next call's."""
        pair = self.pair
        if pair is None:
            return
        for _ in range(BURST):
            try:
                told = parse_monitor_message(pair.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            yield Event(told["event"], told["endpoint"].decode("utf-8", "replace"), told["value"])

    def close(self) -> None:
        """Before the socket is closed, or after it."""
        if self.pair is None:
            return
        with suppress(zmq.ZMQError):  # the socket is closed, or the context terminated: nothing is left to disable
            self._socket.disable_monitor()
        self.pair.close(0)  # disabling leaves it open
        self.pair = None
