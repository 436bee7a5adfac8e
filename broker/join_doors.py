"""The join's sockets: a DEALER to the broker, the live PUB, and the ROUTER that answers catch-up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, Self

import zmq

from broker import curve, wire
from broker.curve import Credentials
from broker.gate import Gate, guarded
from broker.keepalive import keep_alive
from broker.redial import keep_trying
from broker.turn import Counts
from broker.wire import Message, Since, WireError

Context = zmq.Context[zmq.Socket[bytes]]

#: Messages that wait for the broker at most; more are counted, and left to its repeats.
EGRESS_WAITING: Final = 256
#: Messages, and items in them, that are taken from the broker at once; questions that are taken from consumers.
BURST: Final = 512
BURST_ITEMS: Final = 2048
QUESTIONS: Final = 16
#: Messages that wait for one slow consumer of the live stream; more are lost to it, and it catches up. The consumer has
#: a queue of its own, so this one only has to last while the network does not.
LIVE_WAITING: Final = 1000
#: Pages that wait for one consumer that asked for them: one is asked for at a time.
PAGES_WAITING: Final = 2

_MORE: Final = zmq.NOBLOCK | zmq.SNDMORE


class JoinDoors:
    """Opened and closed, as a context manager, by the thread that uses them. Nothing here waits but `wait`."""

    _egress: zmq.Socket[bytes]

    def __init__(
        self,
        egress: str,
        live: str,
        catchup: str,
        context: Context | None,
        counts: Counts,
        gate: Gate | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._gate = gate
        self._credentials = credentials
        self._endpoints = egress, live, catchup
        self._context = context
        self._counts = counts
        self._stack = contextlib.ExitStack()
        #: No message of the broker waits.
        self.drained = True
        #: Something of the broker, whatever it was, was received last.
        self.heard = False
        #: Items (expectations, answers and the like) in what was received last.
        self.items = 0

    def __enter__(self) -> Self:
        with self._stack:
            self._open()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait(self, milliseconds: int) -> bool:
        """Until a message comes, at most so long; whether one waits."""
        return bool(self._poller.poll(milliseconds))

    def received(self) -> Iterator[Any]:
        """What the broker has sent, up to a bound."""
        self.items = 0
        self.heard = self.drained = False
        for _ in range(BURST):
            try:
                segments = self._egress.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                self.drained = True
                return
            self.heard = self._heard = True
            try:
                message = wire.decode_message(segments)
            except WireError as error:
                self._counts["refused_total", error.reason] += 1
                continue
            yield message
            self.items += len(getattr(message, "items", ()))
            if self.items >= BURST_ITEMS:
                return

    def tell_broker(self, message: Message) -> bool:
        """False, and counted, when there is no broker or it does not read."""
        try:
            self._egress.send_multipart(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self._counts["undelivered_total", type(message).__name__, "full"] += 1
            return False
        return True

    def revive(self) -> None:
        """Nothing can be sent to the broker. Over inproc a broken connection is never made again: make a new one."""
        if self._heard and self._egress_at.startswith("inproc:"):
            self._poller.unregister(self._egress)
            self._egress.close()
            self._connect()

    def publish(self, live: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Send (topic, header, body) to whoever listens; for one that does not keep up, libzmq drops them."""
        send = self._live.send
        for topic, header, body in live:
            send(topic, _MORE)
            send(header, _MORE)
            send(body, zmq.NOBLOCK)

    def questions(self) -> Iterator[tuple[bytes, Since]]:
        """What consumers ask, up to a bound."""
        for _ in range(QUESTIONS):
            try:
                identity, *segments = self._catchup.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if self._gate is not None and segments and self._gate.who(self._catchup, segments[0]) is None:
                continue
            try:
                message = wire.decode_message([segment.bytes for segment in segments])
            except WireError as error:
                self._counts["refused_total", error.reason] += 1
                continue
            if isinstance(message, Since):
                yield identity.bytes, message
            else:
                self._counts["refused_total", "unexpected"] += 1

    def answer(self, identity: bytes, message: Message) -> bool:
        """An answer to a consumer. False, and counted, when it is gone, or does not read what it asked for before."""
        try:
            self._catchup.send_multipart([identity, *wire.encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            reason = "full" if error.errno == zmq.EAGAIN else "gone"
            self._counts["undelivered_total", type(message).__name__, reason] += 1
            return False
        return True

    def _open(self) -> None:
        egress, live, catchup = self._endpoints
        context = self._context or self._stack.enter_context(zmq.Context())
        self._live = self._stack.enter_context(context.socket(zmq.PUB))
        self._catchup = self._stack.enter_context(context.socket(zmq.ROUTER))
        if self._gate is not None:  # after the doors, for it closes before them
            self._stack.callback(self._gate.close)
            self._gate.open(context)
        self._live.setsockopt(zmq.SNDHWM, LIVE_WAITING)
        self._live.setsockopt(zmq.LINGER, 500)
        self._live.setsockopt(zmq.MAXMSGSIZE, wire.HEADER_LIMIT)  # of a subscription
        self._bind(self._live, live, "live")
        self._catchup.setsockopt(zmq.LINGER, 0)
        self._catchup.setsockopt(zmq.SNDHWM, PAGES_WAITING)
        self._catchup.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._catchup.setsockopt(zmq.MAXMSGSIZE, wire.HEADER_LIMIT)
        self._bind(self._catchup, catchup, "catchup")
        self._poller = zmq.Poller()
        self._poller.register(self._catchup, zmq.POLLIN)
        if self._gate is not None:
            self._gate.watch(self._poller)
        self._stack.callback(lambda: self._egress.close())  # which may be another one by then
        self._egress_context, self._egress_at = context, egress
        self._connect()

    def _bind(self, socket: zmq.Socket[bytes], endpoint: str, door: str) -> None:
        socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        keep_alive(socket)
        guarded(self._gate, socket, endpoint, door)
        socket.bind(endpoint)

    def _connect(self) -> None:
        self._heard = False
        self._egress = self._egress_context.socket(zmq.DEALER)
        self._egress.setsockopt(zmq.LINGER, 0)
        # No ZMQ_IMMEDIATE: with it libzmq (4.3.5) aborts when a connection breaks while a message is read. What waits
        # for a broker that is away is of an epoch that the next one does not know.
        self._egress.setsockopt(zmq.SNDHWM, EGRESS_WAITING)
        self._egress.setsockopt(zmq.MAXMSGSIZE, wire.BATCH_LIMIT)
        keep_trying(self._egress)
        curve.call(self._egress, self._egress_at, self._credentials)
        self._egress.connect(self._egress_at)
        self._poller.register(self._egress, zmq.POLLIN)
