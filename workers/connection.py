"""Whether a socket has a connection, as libzmq's monitor tells."""

from __future__ import annotations

from typing import Final, Self

import zmq

from broker.socket_monitor import SocketMonitor

_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class Connection:
    """Watches the one connection of `socket` to `endpoint`; enter it before the socket connects. Belongs to the thread
    of the socket. inproc has no events: it counts as connected, and a send to nobody fails there."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self._monitor = SocketMonitor(socket, endpoint, _EVENTS)
        self._there = False

    def __enter__(self) -> Self:
        self._monitor.open()
        self._there = self._monitor.pair is None
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.close()

    def there(self) -> bool:
        """Whether it stands now."""
        for event in self._monitor.events():
            self._there = event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return self._there
