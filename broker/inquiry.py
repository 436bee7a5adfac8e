"""A DEALER that asks the join for what was published. One thread uses all of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import zmq

from broker import curve, wire
from broker.curve import Credentials
from broker.redial import keep_trying
from broker.turn import Counts
from broker.wire import End, Gone, Message, Page, Since, WireError

Context = zmq.Context[zmq.Socket[bytes]]

#: Answers that one call takes at most: one is asked for at a time.
BURST: Final = 4


class Inquiry:
    """Of the join's catch-up at `endpoint`. What is no answer is refused, and counted."""

    _socket: zmq.Socket[bytes]

    def __init__(self, endpoint: str, counts: Counts, credentials: Credentials | None) -> None:
        self._endpoint = endpoint
        self._counts = counts
        self._credentials = credentials
        self._context: Context
        self._poller: zmq.Poller

    def open(self, context: Context, poller: zmq.Poller) -> None:
        """Connect; `poller` wakes for answers. Raises zmq.ZMQError."""
        self._context, self._poller = context, poller
        self._connect()

    def renew(self) -> None:
        """No answer came: what was asked may be lost, and over inproc the connection."""
        self._poller.unregister(self._socket)
        self._socket.close(0)
        self._connect()

    def close(self) -> None:
        self._socket.close(0)

    def ask(self, question: Since) -> None:
        """Without a connection it waits for one."""
        try:
            self._socket.send_multipart(wire.encode(question), zmq.NOBLOCK)
        except zmq.Again:
            self._counts["undelivered_total", "Since", "full"] += 1

    def answers(self) -> Iterator[Message]:
        """What has come."""
        for _ in range(BURST):
            try:
                segments: list[Any] = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = wire.decode_message(segments)
            except WireError as error:
                self._counts["refused_total", error.reason] += 1
                continue
            if isinstance(message, Page | End | Gone):
                yield message
            else:
                self._counts["refused_total", "unexpected"] += 1

    def _connect(self) -> None:
        socket = self._socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        keep_trying(socket)
        curve.call(socket, self._endpoint, self._credentials)
        socket.connect(self._endpoint)
        self._poller.register(socket, zmq.POLLIN)
