"""Who did not get through the handshake at a bound socket.

libzmq names our own address there, and no peer. That is asked of the system while the connection stands: a peer that is
gone by then stays unknown.
"""

from __future__ import annotations

import socket as system_socket
from typing import Any, Final

import zmq

from broker.socket_monitor import Event, SocketMonitor

_FAILED: Final = frozenset({zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL})
EVENTS: Final = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


class Callers:
    """Watches the connections of one bound socket; open it before that binds. All in the thread of the socket."""

    def __init__(self, socket: zmq.Socket[Any], endpoint: str) -> None:
        self.monitor = SocketMonitor(socket, endpoint, EVENTS)
        self._socket = socket
        self._addresses: dict[int, str] = {}  # by file descriptor
        self._unnamed = 0  # handshakes that failed, whose connection's end was not told yet

    def failed(self) -> list[str]:
        """The address of each peer whose handshake has failed; "" where it is not known. Takes a burst of events."""
        before = self._unnamed
        events = list(self.monitor.events())
        newest = {event.value: number for number, event in enumerate(events) if event.kind == zmq.EVENT_ACCEPTED}
        found: list[str] = []
        for number, event in enumerate(events):
            if event.kind == zmq.EVENT_ACCEPTED:
                # A descriptor that is given out again says nothing of who had it before.
                self._addresses[event.value] = self._peer(event.value) if newest[event.value] == number else ""
            else:
                found += self._end(event)
        overdue = min(before, self._unnamed)
        self._unnamed -= overdue
        return found + [""] * overdue

    def _end(self, event: Event) -> list[str]:
        if event.kind in _FAILED:
            self._unnamed += 1
            return []
        address = self._addresses.pop(event.value, "")  # libzmq tells of the end right after the failure
        if not self._unnamed:
            return []
        self._unnamed -= 1
        return [address]

    def _peer(self, descriptor: int) -> str:
        """The address at the other end, if the descriptor is still a connection of this socket."""
        endpoint = self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
        if not endpoint.startswith("tcp:"):
            return "this machine"
        try:
            connection = system_socket.socket(fileno=descriptor)
        except OSError:
            return ""
        try:
            own = connection.getsockname()[1] == int(endpoint.rpartition(":")[2])
            return str(connection.getpeername()[0]) if own else ""
        except (OSError, IndexError, ValueError):
            return ""
        finally:
            connection.detach()  # it is libzmq's
