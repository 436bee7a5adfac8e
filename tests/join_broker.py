"""A broker's egress for tests of the join's server: says what it is told to, keeps what the join answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

import zmq

from broker import wire
from broker.wire import Closed, Closing, Jack, JoinHello, Known, Message
from tests.join_world import TEXT, Items

#: Seconds that anything in these tests may take.
PATIENCE = 20.0


def when_free(bind: Callable[[], Any]) -> None:
    """`bind()`, again while the address is in use: a closed socket lets go of it a little later."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            bind()
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                raise


class FakeBroker:
    """Binds the egress; `until` pumps messages until a condition holds. Everything unacked is sent again to a join
    with a new epoch, and every 0.25 s, as the real one does."""

    def __init__(self, endpoint: str, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.router_mandatory = True
        when_free(lambda: self.socket.bind(endpoint))
        self.items = Items()
        self.join = b""
        self.join_epoch = ""
        self.hellos: list[str] = []
        self.unacked: dict[int, Any] = {}
        self.known: dict[int, Known] = {}
        self.closings: list[Closing] = []
        self.acked_total = 0
        self.repeat_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *messages: Message) -> None:
        """Send once, whatever becomes of it."""
        for message in messages:
            self.raw(*wire.encode(message))

    def raw(self, *segments: bytes) -> None:
        try:
            self.socket.send_multipart([self.join, *segments])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def tell(self, *items: Any) -> None:
        """Send items, and again until they are acked."""
        for item in items:
            self.unacked[item.ticket] = item
        self._send_items(list(items))

    def until(self, condition: Callable[[], Any], what: str = "") -> None:
        """Serve until `condition()`; fails after `PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, what or "the join did not do it in time"
            self.serve()

    def settle(self) -> None:
        self.until(lambda: not self.unacked, "not everything was acked")

    def serve(self, milliseconds: int = 20) -> None:
        if self.socket.poll(milliseconds):
            while self.socket.poll(0):
                self._hear()
        if self.unacked and self.join and time.monotonic() >= self.repeat_at:
            self._send_items(list(self.unacked.values()))

    def _hear(self) -> None:
        identity, *segments = self.socket.recv_multipart()
        message = wire.decode_message(segments)
        match message:
            case JoinHello():
                self.join = identity
                self.hellos.append(message.epoch)
                self.send(self.items.line(TEXT))
                if message.epoch != self.join_epoch:
                    self.join_epoch = message.epoch
                    self._send_items(list(self.unacked.values()))
            case Jack() if message.epoch == self.items.epoch:
                self.known.update((known.ticket, known) for known in message.known)
                for ticket in message.tickets:
                    self.acked_total += self.unacked.pop(ticket, None) is not None
            case Closed() if message.epoch == self.items.epoch:
                self.closings += message.items

    def _send_items(self, items: list[Any]) -> None:
        self.repeat_at = time.monotonic() + 0.25
        expectations = [item for item in items if hasattr(item, "models")]
        outcomes = [item for item in items if not hasattr(item, "models")]
        for start in range(0, len(expectations), 500):
            self.send(self.items.expect(*expectations[start : start + 500]))
        for start in range(0, len(outcomes), 500):
            self.send(self.items.result(*outcomes[start : start + 500]))
