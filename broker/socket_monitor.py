"""What libzmq says of a socket's connections: made, broken, refused. Read by whoever uses the socket, in its thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any, Final, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

#: Events that one call takes at most: strangers who knock without end keep nobody busy for ever.
BURST: Final = 256
#: Events that may wait for their reader. libzmq's thread waits with the one after them, and holds the lock meanwhile
#: that `close` needs: what comes between its last look and the lock must have room, tens of thousands a second.
WAITING: Final = 20_000

_numbers: Final = count()


class Event(NamedTuple):
    """`kind`: one of zmq's EVENT_ numbers; `endpoint`: of the connection, where the socket was bound its own; `value`:
    its file descriptor (on Windows its SOCKET), or an error's number."""

    kind: int
    endpoint: str
    value: int


class SocketMonitor:
    """The events of `socket`, of the kinds in `events` (a mask). Open it before the socket binds or connects.

    libzmq's own thread waits for whoever does not read them: call `events` in every turn. `endpoint`: over inproc there
    are none, and nothing is opened. `waiting`: events that may be unread, beside the 1,000 on libzmq's side.
    """

    def __init__(self, socket: zmq.Socket[Any], endpoint: str, events: int, waiting: int = WAITING) -> None:
        self._waiting = waiting
        self._socket = socket
        self._events = events
        self._silent = endpoint.startswith("inproc:")
        #: To be polled; None while it is closed, and over inproc.
        self.pair: zmq.Socket[Any] | None = None

    def open(self) -> None:
        """Raises zmq.ZMQError."""
        if self._silent:
            return
        address = f"inproc://monitor-{next(_numbers)}"
        self._socket.monitor(address, self._events)
        self.pair = self._socket.context.socket(zmq.PAIR)
        self.pair.rcvhwm = self._waiting  # before it connects
        self.pair.connect(address)

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
        """Before the socket is closed, or after it. Events that were not read are discarded.

        Where as many wait as there is room for, libzmq's thread stands still in the middle of the next one, with the
        lock that disabling takes; so they are read first.
        """
        if self.pair is None:
            return
        with suppress(zmq.ZMQError):  # the socket is closed, or the context terminated: nothing is left to disable
            self._drain(self.pair)
            self._socket.monitor(None, 0)
        self.pair.close(0)  # disabling leaves it open
        self.pair = None

    def _drain(self, pair: zmq.Socket[Any]) -> None:
        """Make room; bounded, for those who knock may not stop."""
        for _ in range(2 * (self._waiting + 1000)):
            try:
                pair.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
