"""How servers with keys close: what watches a door ends before the door does, whoever comes and goes meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from broker.gate import Gate
from broker.line import Line, Role
from broker.server import BrokerServer
from tests.peers import Context, running
from tests.secured import PATIENCE, Keys, knocking
from tests.test_gate import made

#: Times that a broker is opened and closed.
TIMES = 12
PEERS = 4


@pytest.fixture(autouse=True)
def _not_within_a_process(transport: str) -> None:
    if transport == "inproc":
        pytest.skip("inproc has no CURVE")


class Witness(Gate):
    """Notes, as it closes, which of its doors are closed already."""

    closed: list[bool] | None = None

    def close(self) -> None:
        if self._doors:
            self.closed = [door.closed for door in self._doors]
        super().close()


@pytest.mark.parametrize("role", ["broker", "join", "recorder"])
def test_the_gate_closes_before_its_doors(role: Role, endpoint: Callable[[str], str], tmp_path: Path) -> None:
    keys = Keys()
    line = keys.line(endpoint)
    gate = Witness(keys.own[role], keys.security().keys)
    server, _ = made(role, line, gate, tmp_path)
    with running(server):
        assert server.ready.wait(PATIENCE)
    assert gate.closed and not any(gate.closed)


@pytest.mark.parametrize("role", ["broker", "join", "recorder"])
def test_a_gate_whose_door_cannot_be_bound_closes_first_as_well(
    role: Role, endpoint: Callable[[str], str], context: Context, transport: str, tmp_path: Path
) -> None:
    if transport != "tcp":
        pytest.skip("libzmq takes an ipc address over from whoever has it")
    keys = Keys()
    line = keys.line(endpoint)
    gate = Witness(keys.own[role], keys.security().keys)
    server, at = made(role, line, gate, tmp_path)
    with context.socket(zmq.REP) as taker:
        taker.bind(at)
        with pytest.raises(zmq.ZMQError):
            server.run()
    assert gate.closed and not any(gate.closed)


def test_a_broker_opens_and_closes_while_peers_come_and_go(endpoint: Callable[[str], str], context: Context) -> None:
    keys = Keys()
    line = keys.line(endpoint)
    with coming_and_going(line, keys, context):
        for _ in range(TIMES):
            with knocking(context, zmq.DEALER, line.endpoints.frontend, keys.to("broker", keys.own["camera"])) as peer:
                with running(BrokerServer(line, gate=keys.gate())) as server:
                    assert server.ready.wait(PATIENCE)
                    peer.wait_for(zmq.EVENT_HANDSHAKE_SUCCEEDED)
                peer.wait_for(zmq.EVENT_DISCONNECTED)


@contextlib.contextmanager
def coming_and_going(line: Line, keys: Keys, context: Context) -> Iterator[None]:
    """Peers, known ones and strangers, that connect and leave all the time."""
    over = threading.Event()

    def visit(number: int) -> None:
        own = keys.own["camera"] if number % 2 else keys.stranger
        while not over.is_set():
            with knocking(context, zmq.DEALER, line.endpoints.frontend, keys.to("broker", own)) as peer:
                peer.monitor.poll(20)

    visitors = [threading.Thread(target=visit, args=(number,), daemon=True) for number in range(PEERS)]
    for visitor in visitors:
        visitor.start()
    try:
        yield
    finally:
        over.set()
        for visitor in visitors:
            visitor.join(PATIENCE)
            assert not visitor.is_alive()
