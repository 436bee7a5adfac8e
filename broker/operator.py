"""An operator's side of the broker's control endpoint: one question, one answer."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import zmq

from broker import curve, wire
from broker.curve import Credentials
from broker.redial import keep_trying


class Unanswered(Exception):
    """No answer came in time."""


class Operator:
    """Asks the broker at `control`, waiting at most `timeout` seconds for each answer. Used by one thread.

    `credentials`: for a broker that asks for keys.
    """

    def __init__(self, control: str, timeout: float = 5.0, credentials: Credentials | None = None) -> None:
        self.control = control
        self._timeout = timeout
        self._credentials = credentials

    def __enter__(self) -> Operator:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close(0)
        self._context.term()

    def _connect(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        keep_trying(self._socket)
        curve.call(self._socket, self.control, self._credentials)
        self._socket.connect(self.control)

    def ask(self, message: wire.Message) -> Any:
        """The answer. Raises Unanswered; the next question then has a socket of its own, which no late answer reaches.

        Raises zmq.ZMQError for an address that is none.
        """
        self._socket.send_multipart(wire.encode(message))
        if not self._socket.poll(round(self._timeout * 1000)):
            self._socket.close(0)
            self._connect()
            raise Unanswered(
                f"no answer within {self._timeout:g} s from {self.control}: is the broker running? "
                "Where it asks for keys: is this operator's listed?"
            )
        return wire.decode_message(self._socket.recv_multipart())
