"""Sockets that try again. The peer that does not answer is a listener whose queue is full: what comes is dropped."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from broker.redial import keep_trying


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
