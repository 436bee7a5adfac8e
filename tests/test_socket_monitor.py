"""The events of a socket: bounded at once, none lost, none over inproc; a session's port reads all of them."""

from __future__ import annotations

import socket as system_socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zmq

from broker.doors import Doors
from broker.roster import Session, Worker
from broker.socket_monitor import BURST, SocketMonitor
from broker.wire import data_endpoint
from tests.conftest import free_port
from tests.peers import Context, make_line, ready
from tests.secured import wait_until


def knock(endpoint: str, times: int) -> None:
    """Connect and leave without a word."""
    address = urlsplit(endpoint)
    for _ in range(times):
        with system_socket.create_connection((str(address.hostname), int(address.port or 0))):
            pass


def test_one_call_takes_a_burst_at_most_and_the_next_one_the_rest(context: Context) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with context.socket(zmq.PUSH) as door:
        door.linger = 0
        monitor = SocketMonitor(door, endpoint, zmq.EVENT_DISCONNECTED)
        monitor.open()
        assert monitor.pair is not None
        door.bind(endpoint)
        found: list[int] = []
        total = BURST + 20

        def take() -> bool:
            found.append(len(list(monitor.events())))
            return sum(found) >= total

        knock(endpoint, total)
        wait_until(take, "every end of a connection is told")
        assert max(found) <= BURST and sum(found) == total
        monitor.close()
        assert monitor.pair is None and list(monitor.events()) == []


def test_a_monitor_may_be_closed_after_its_socket(context: Context) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    door = context.socket(zmq.PUSH)
    monitor = SocketMonitor(door, endpoint, zmq.EVENT_ALL)
    monitor.open()
    door.close(0)
    monitor.close()
    monitor.close()


#: Knocks until nobody is let in any more, or so many times; then closes. In a process of its own: where closing waits
#: for libzmq's thread, it holds the interpreter's lock, and not even a timeout gets through.
FLOODED = """
import socket, sys
import zmq
from broker.socket_monitor import SocketMonitor

times, waiting = map(int, sys.argv[1:])
context = zmq.Context()
door = context.socket(zmq.PUSH)
bounds = {"waiting": waiting} if waiting else {}
monitor = SocketMonitor(door, "tcp://", zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED, **bounds)
monitor.open()
port = door.bind_to_random_port("tcp://127.0.0.1")
try:
    for _ in range(times):
        socket.create_connection(("127.0.0.1", port), 3.5).close()  # a full backlog costs a second, or two more
except TimeoutError:
    print("libzmq stands still")
monitor.close()
door.close(0)
context.term()
print("closed")
"""


@pytest.mark.parametrize(("times", "waiting", "said"), [(2200, 0, ""), (5000, 10, "libzmq stands still ")])
def test_closing_waits_for_nobody_however_many_events_are_unread(times: int, waiting: int, said: str) -> None:
    command = [sys.executable, "-c", FLOODED, str(times), str(waiting)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=20)
    assert " ".join(done.stdout.split()) == f"{said}closed"


def test_inproc_has_no_events(context: Context) -> None:
    with context.socket(zmq.PUSH) as door:
        monitor = SocketMonitor(door, "inproc://here", zmq.EVENT_ALL)
        monitor.open()
        assert monitor.pair is None and list(monitor.events()) == []
        monitor.close()


def test_a_session_port_that_strangers_knock_at_is_read_up_in_one_turn(
    transport: str, endpoint: Callable[[str], str], context: Context
) -> None:
    """A worker's end must not wait behind the ends of all of them."""
    if transport != "tcp":
        pytest.skip("only tcp ports can be scanned")
    line = make_line(endpoint)
    doors = Doors(line, context)
    doors.open()
    try:
        session = Session(ready(), Worker("w1", b"w", 0.0), 0.0)
        data = data_endpoint(line.endpoints.backend, doors.open_session(session))
        with context.socket(zmq.PULL) as worker:
            worker.linger = 0
            knock(data, 20)
            worker.connect(data)
            wait_until(lambda: list(doors.just_connected()), "the worker is there")
        wait_until(lambda: doors.poll(0.0), "somebody has hung up")
        turns = 0
        while not list(doors.disconnected(doors.poll(0.05))):
            turns += 1
            assert turns < 10, "the worker's end is behind that of strangers"
    finally:
        doors.close()
