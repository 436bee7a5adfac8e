"""Ends all connections of a bound socket, and lets new ones come: the way to send away who only receives."""

from __future__ import annotations

import math
from typing import Any, Final

import zmq

from broker import log

logger = log.get(__name__)

#: Seconds in which the ended connections are seen off, and between two log lines about a door that stays shut.
SEEN_OFF: Final = 1.0
TELL_EVERY: Final = 10.0


class Reopening:
    """Of one door, called `name` in the log. `shut` it, then call `turn` until `over`; nothing here waits."""

    def __init__(self, socket: zmq.Socket[Any], name: str) -> None:
        # libzmq knows the door by the address that came of `*` or of an interface's name.
        self.endpoint = socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self.is_open = True
        self._socket = socket
        self._name = name
        self._shut_at = -math.inf
        self._tell_at = math.inf
        self._told = False

    def shut(self, now: float) -> None:
        """End all connections. The old listener takes a moment to go."""
        self._shut_at = now
        if self.is_open:
            self._socket.unbind(self.endpoint)
            self.is_open = False
            self._tell_at = now + SEEN_OFF

    def turn(self, now: float) -> None:
        """Open it if its address is free; if that takes long, the log says so, and it is tried for ever."""
        self._socket.getsockopt(zmq.EVENTS)  # a socket that was shut ends its connections only while somebody calls it
        if self.is_open:
            return
        try:
            self._socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            if error.errno in (zmq.ETERM, zmq.ENOTSOCK):
                raise
            if now >= self._tell_at:
                self._tell(now, str(error))
            return
        self.is_open = True
        if self._told:
            self._told = False
            logger.info("a door is open again", door=self._name, endpoint=self.endpoint, state="open, new keys")

    def over(self, now: float) -> bool:
        """Whether it is open, and all of before are seen off."""
        return self.is_open and now - self._shut_at > SEEN_OFF

    def _tell(self, now: float, error: str) -> None:
        self._tell_at = now + TELL_EVERY
        self._told = True
        logger.error(
            "a door cannot be opened again yet; free its address",
            door=self._name,
            endpoint=self.endpoint,
            error=error,
            state="shut since the keys changed: who was in is out, and nobody comes in",
            seconds=round(now - self._shut_at, 1),
        )
