"""A peer goes at once while what it sent waits unread: libzmq may abort its process on that (`broker.keepalive`)."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fuzz import zmtp

#: Milliseconds after which a heartbeat, if any were asked for, would long have come.
LONG = 2500
#: Opens the broker's doors, and reads nothing; on a line of input it waits, then reads what there is.
BOUND = f"""
import sys, time, zmq
from broker.doors import Doors
from tests.conftest import free_port
from tests.peers import make_line
line = make_line(lambda name: f"tcp://127.0.0.1:{{free_port()}}")
doors = Doors(line, None)
doors.open()
print(getattr(line.endpoints, sys.argv[1]), flush=True)
sys.stdin.readline()
time.sleep({LONG / 1000})
door = getattr(doors, sys.argv[1])
count = 0
while door.poll(200):
    door.recv_multipart()
    count += 1
print(count, flush=True)
doors.close()
"""
#: Connects to a peer, and reads nothing; on a line of input it waits, then reads what there is.
CALLING = f"""
import sys, time, zmq
from broker.redial import keep_trying
with zmq.Context() as context, context.socket(zmq.PULL) as pull:
    pull.linger, pull.rcvhwm = 0, 4
    keep_trying(pull)
    pull.connect(sys.argv[1])
    sys.stdin.readline()
    time.sleep({LONG / 1000})
    count = 0
    while pull.poll(200):
        pull.recv_multipart()
        count += 1
    print(count, flush=True)
"""


@contextlib.contextmanager
def running(code: str, argument: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", code, argument]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=10)


#: A heartbeat of ZMTP that asks for an answer.
PING = b"\x04\x07\x04PING\x00\x00"


def fill(connection: socket.socket, kind: bytes, between: bytes = b"", size: int = 4000) -> None:
    """Greet as a socket of `kind`, and send until nothing goes any more: the peer has stopped to read."""
    connection.settimeout(10.0)
    connection.sendall(zmtp.GREETING + zmtp.ready(kind))
    heard = b""
    while b"READY" not in heard:
        heard += connection.recv(4096)
    connection.settimeout(0.5)
    blob = (zmtp.message(b"anything", bytes(size)) + between) * 64
    with contextlib.suppress(TimeoutError):
        while True:
            connection.sendall(blob)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def is_alive_after(child: subprocess.Popen[str]) -> bool:
    """Whether it reads what has waited, and ends by itself."""
    told, _ = child.communicate("now\n", timeout=30)
    return child.returncode == 0 and int(told.split()[-1]) > 0


@pytest.mark.parametrize("door", ["frontend", "backend", "egress"])
def test_who_binds_outlives_it(door: str) -> None:
    with running(BOUND, door) as child:
        assert child.stdout is not None
        endpoint = child.stdout.readline().strip()
        for _ in range(4):
            with zmtp.connect(endpoint) as connection:
                fill(connection, b"DEALER")
                reset(connection)
        assert is_alive_after(child)


@pytest.mark.xfail(strict=True, reason="libzmq 4.3.5 aborts when it finds a heartbeat in what a reset peer had sent")
def test_who_binds_outlives_a_peer_with_heartbeats() -> None:
    """No setting of ours helps: keys, or a firewall, keep such a peer out, and the broker is started again."""
    with running(BOUND, "backend") as child:
        assert child.stdout is not None
        with zmtp.connect(child.stdout.readline().strip()) as connection:
            fill(connection, b"DEALER", PING, size=40)
            reset(connection)
        assert is_alive_after(child)


def test_who_connects_outlives_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(15.0)
        with running(CALLING, f"tcp://127.0.0.1:{listener.getsockname()[1]}") as child:
            with listener.accept()[0] as connection:
                fill(connection, b"PUSH")
                reset(connection)
            assert is_alive_after(child)
