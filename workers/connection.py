"""A worker's DEALER to the broker's backend, and whether it has a connection, as libzmq's monitor tells."""

from __future__ import annotations

from typing import Any, Final, Self

import zmq

from broker import curve
from broker.curve import Credentials
from broker.redial import keep_trying
from broker.socket_monitor import SocketMonitor
from broker.wire import BATCH_LIMIT, HEADER_LIMIT, Message, encode
from workers.errors import WorkersError

#: Messages that wait for the broker inside ZeroMQ; what is more waits in the Outbox.
SEND_LIMIT: Final = 64
_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class Connection:
    """Calls on `endpoint`, again and again, while it is entered; belongs to the thread that enters it.

    inproc has no events: it counts as connected, and a send to nobody fails there.
    """

    #: For a poller.
    socket: zmq.Socket[bytes]

    def __init__(self, context: zmq.Context[Any], endpoint: str, credentials: Credentials | None) -> None:
        self._context = context
        self._endpoint = endpoint
        self._credentials = credentials
        self._monitor: SocketMonitor
        self._there = False

    def __enter__(self) -> Self:
        """Raises WorkersError where the endpoint is no address."""
        self.socket = self._context.socket(zmq.DEALER)
        self._monitor = SocketMonitor(self.socket, self._endpoint, _EVENTS)
        try:
            self._connect()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def there(self) -> bool:
        """Whether it stands now."""
        for event in self._monitor.events():
            self._there = event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return self._there

    def send(self, message: Message) -> bool:
        """False: no broker is there to take it."""
        if not self.there():
            return False
        try:
            self.socket.send_multipart(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[bytes] | None:
        """A message that is here, in segments; None: there is none."""
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _connect(self) -> None:
        # No ZMQ_IMMEDIATE: with it libzmq (4.3.5) aborts when a connection breaks while a message is read. `send` asks
        # the monitor instead whether there is a connection: what waited for one would grow stale.
        socket = self.socket
        socket.sndhwm = SEND_LIMIT
        socket.linger = 1000
        socket.maxmsgsize = BATCH_LIMIT + HEADER_LIMIT
        keep_trying(socket)
        self._monitor.open()
        self._there = self._monitor.pair is None
        curve.call(socket, self._endpoint, self._credentials)
        try:
            socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            raise WorkersError(f"backend {self._endpoint}: {error}; say --backend tcp://HOST:PORT") from None

    def _close(self) -> None:
        self._monitor.close()
        self.socket.close()
