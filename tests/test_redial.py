"""Sockets that try again, and that notice when nobody is there any more.

The peer that does not answer is a listener whose queue is full: what comes is dropped. One that does not greet takes a
connection and says nothing. A link that has died without a word is a relay whose system drops all that comes for it.
"""

from __future__ import annotations

import ctypes
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from broker.keepalive import IDLE, INTERVAL, PROBES, keep_alive
from broker.redial import keep_trying
from broker.socket_monitor import SocketMonitor


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which connections are neither taken nor refused; Windows refuses them, which is tried again as well."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(3):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        yield port


def test_a_try_that_nothing_answers_is_given_up_for_another_one(silent_port: int) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        keep_trying(dealer)
        monitor = dealer.get_monitor_socket(zmq.EVENT_CONNECT_RETRIED)
        dealer.connect(f"tcp://127.0.0.1:{silent_port}")
        tries = 0
        while tries < 2 and monitor.poll(10_000):
            recv_monitor_message(monitor)
            tries += 1
        dealer.disable_monitor()
        monitor.close(0)
    assert tries == 2


def test_a_peer_that_never_greets_is_given_up_for_another_try(transport: str) -> None:
    if transport != "tcp":
        pytest.skip("the peer is a bare tcp listener")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(15.0)
        dealer = stack.enter_context(stack.enter_context(zmq.Context()).socket(zmq.DEALER))
        dealer.linger = 0
        keep_trying(dealer)
        dealer.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        for _ in range(2):
            stack.enter_context(listener.accept()[0])


#: Linux's SO_ATTACH_FILTER.
_ATTACH_FILTER = 26


class Relay:
    """Passes bytes on between whoever connects to `port` and `target`, until it is cut off."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.port: int = self._listener.getsockname()[1]
        self._near: list[socket.socket] = []

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(10)

    def _run(self) -> None:
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            selector.register(stack.enter_context(self._listener), selectors.EVENT_READ)
            while not self._ending.is_set():
                for ready, _ in selector.select(0.05):
                    if ready.fileobj is self._listener:
                        self._join(stack, selector)
                    elif not (passed := _read(ready.fileobj)):
                        selector.unregister(ready.fileobj)
                    else:
                        ready.data.sendall(passed)

    def _join(self, stack: ExitStack, selector: selectors.BaseSelector) -> None:
        near = stack.enter_context(self._listener.accept()[0])
        self._near.append(near)
        far = stack.enter_context(socket.create_connection(("127.0.0.1", self._target)))
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)

    def cut_off(self) -> None:
        """From now on no packet of who has connected arrives here: none is confirmed, no probe is answered."""
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # a filter that lets 0 bytes pass
        for near in self._near:
            near.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(nothing)))


def _read(connection: object) -> bytes:
    assert isinstance(connection, socket.socket)
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


@pytest.mark.parametrize("sends", [False, True], ids=["silent", "sends"])
@pytest.mark.parametrize(("caller", "peer"), [(zmq.SUB, zmq.PUB), (zmq.PULL, zmq.PUSH), (zmq.DEALER, zmq.ROUTER)])
def test_a_link_that_has_died_without_a_word_is_noticed(transport: str, caller: int, peer: int, sends: bool) -> None:
    """Also by who only receives, and by who has sent what nobody confirms."""
    if transport != "tcp" or sys.platform != "linux":
        pytest.skip("the relay is of tcp, and cut off by a filter of Linux")
    if sends and caller == zmq.PULL:
        pytest.skip("it never sends")
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        far, near = (stack.enter_context(context.socket(kind)) for kind in (peer, caller))
        far.linger = near.linger = 0
        relay = stack.enter_context(Relay(far.bind_to_random_port("tcp://127.0.0.1")))
        keep_trying(near)
        if caller == zmq.SUB:
            near.subscribe(b"")
        monitor = SocketMonitor(near, "tcp:", zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        stack.callback(monitor.close)
        monitor.open()
        assert monitor.pair is not None
        near.connect(f"tcp://127.0.0.1:{relay.port}")
        assert monitor.pair.poll(10_000)
        assert [event.kind for event in monitor.events()] == [zmq.EVENT_HANDSHAKE_SUCCEEDED]
        relay.cut_off()
        if sends and caller == zmq.SUB:
            near.subscribe(b"more")
        elif sends:
            near.send(b"anybody there?")
        assert monitor.pair.poll(15_000), "the link counts as alive"
        assert next(monitor.events()).kind == zmq.EVENT_DISCONNECTED


def test_a_peer_that_is_alive_and_reads_nothing_for_long_is_kept(transport: str) -> None:
    """By who binds: what it was sent would be lost."""
    if transport != "tcp":
        pytest.skip("nothing is probed")
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        push, pull = (stack.enter_context(context.socket(kind)) for kind in (zmq.PUSH, zmq.PULL))
        push.linger = pull.linger = 0
        push.sndhwm = pull.rcvhwm = 2
        keep_alive(push)
        monitor = SocketMonitor(push, "tcp:", zmq.EVENT_DISCONNECTED)
        stack.callback(monitor.close)
        monitor.open()
        assert monitor.pair is not None
        pull.connect(f"tcp://127.0.0.1:{push.bind_to_random_port('tcp://127.0.0.1')}")
        sent = 0
        while push.poll(1000, zmq.POLLOUT):
            push.send(sent.to_bytes(4) + bytes(1 << 20))
            sent += 1
        assert not monitor.pair.poll(1000 * (IDLE + INTERVAL * PROBES) + 2000), "it was cut off"
        assert [int.from_bytes(pull.recv()[:4]) for _ in range(sent)] == list(range(sent))
