"""Whether a socket has a connection, as libzmq's monitor tells."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Self

import zmq
from zmq.utils.monitor import parse_monitor_message

_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class Connection:
    """Watches the one connection of `socket` to `endpoint`; enter it before the socket connects. Belongs to the thread
    of the socket. inproc has no events: it counts as connected, and a send to nobody fails there."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self._socket = socket
        self._monitor: Any = None
        self._silent = endpoint.startswith("inproc:")
        self._there = self._silent

    def __enter__(self) -> Self:
        if not self._silent:
            self._monitor = self._socket.get_monitor_socket(_EVENTS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._monitor is not None:
            with suppress(zmq.ZMQError):  # the context may be terminated; closing is all that is left to do
                self._socket.disable_monitor()
            self._monitor.close(0)

    def there(self) -> bool:
        """Whether it stands now."""
        while self._monitor is not None:
            try:
                message = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._there = parse_monitor_message(message)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return self._there
