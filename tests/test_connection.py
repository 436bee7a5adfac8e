"""Which connection of a camera is its newest, and what of libzmq that rests on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from broker.connection import BELIEVED_AFTER, Connection, number, older
from broker.socket_monitor import SocketMonitor
from tests.peers import Context
from tests.secured import wait_until


def own(count: int) -> bytes:
    return b"\0" + (count % (1 << 32)).to_bytes(4, "big")


def test_libzmq_numbers_connections_in_their_order_whoever_speaks_first(
    endpoint: Callable[[str], str], context: Context
) -> None:
    """The habit that `older` rests on: a number belongs to a connection from its handshake on, and each is new."""
    address = endpoint("frontend")
    with context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.rcvtimeo = 5000
        monitor = SocketMonitor(router, address, zmq.EVENT_HANDSHAKE_SUCCEEDED)
        monitor.open()
        router.bind(address)
        dealers = []
        for _ in range(4):
            dealer = context.socket(zmq.DEALER)
            dealer.linger = 0
            dealer.connect(address)
            if monitor.pair is not None:
                wait_until(lambda: list(monitor.events()), "its handshake is done")
            dealers.append(dealer)
        found = {}
        for place, dealer in reversed(list(enumerate(dealers))):
            dealer.send(b"greeting")
            found[place] = number(router.recv_multipart()[0])
        first = found[0]
        assert first is not None
        assert [found[place] for place in range(4)] == [(first + place) % (1 << 32) for place in range(4)]
        for dealer in dealers:
            dealer.close()
        monitor.close()


@given(st.integers(0, (1 << 32) - 1), st.integers(1, (1 << 31) - 1))
def test_of_two_numbers_the_greater_is_newer_also_over_the_turn(count: int, step: int) -> None:
    assert older(own(count), own(count + step)) and not older(own(count + step), own(count))
    assert not older(own(count), own(count))


@pytest.mark.parametrize("name", [b"", b"cam1", b"\0", b"\0abc", b"\0abcde", b"abcde"])
def test_a_connection_with_a_name_of_its_own_is_newer_when_it_speaks(name: bytes) -> None:
    assert number(name) is None and not older(name, own(5)) and not older(own(5), name)
    connection = Connection(own(5))
    assert connection.greeted(0.0, name, 0.0) and connection.greeted(0.0, own(1), 0.0)


def test_the_first_greeting_of_an_older_connection_shuts_nobody_out() -> None:
    connection = Connection(own(2))
    assert not connection.greeted(0.0, own(1), 0.0)
    assert connection.greeted(0.1, own(2), 0.0) and connection.identity == own(2)


def test_however_many_came_before_the_first_is_older() -> None:
    connection = Connection(own(0))
    assert all(connection.greeted(0.0, own(count), 0.0) for count in range(100))
    assert not connection.greeted(0.0, own(0), 0.0) and connection.stale_at == 0.0


def test_an_older_connection_is_believed_when_it_goes_on_alone() -> None:
    connection = Connection(own(2))
    assert not connection.greeted(10.0, own(1), 9.9)
    assert not connection.greeted(10.0 + BELIEVED_AFTER, own(1), 9.9)
    assert connection.greeted(10.1 + BELIEVED_AFTER, own(1), 9.9) and connection.identity == own(1)
    assert connection.greeted(11.2, own(2), 9.9), "the newer one is there after all"


def test_an_older_connection_is_not_believed_while_the_newest_speaks() -> None:
    connection = Connection(own(2))
    for now in range(10):
        assert not connection.greeted(float(now), own(1), now - 0.5)


def test_two_older_connections_do_not_help_each_other() -> None:
    connection = Connection(own(3))
    assert not connection.greeted(0.0, own(1), -1.0)
    assert not connection.greeted(2.0, own(2), -1.0)
    assert not connection.greeted(2.1, own(1), -1.0)
