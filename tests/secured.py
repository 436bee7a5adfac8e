"""A line with keys for tests: certificates of every role, a broker behind its gate, peers that knock at its doors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from broker import curve
from broker.curve import Credentials
from broker.gate import Gate
from broker.keys import Certificate
from broker.line import KeyEntry, Line, Role, Security
from broker.server import BrokerServer
from tests.peers import Context, Peer, make_line, running

ROLES: tuple[Role, ...] = ("broker", "join", "recorder", "worker", "camera", "consumer", "operator")
#: Longest wait for what must happen.
PATIENCE = 10.0
_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)


def certificate() -> Certificate:
    public, secret = (half.decode() for half in zmq.curve_keypair())
    return Certificate(public, secret)


class Keys:
    """A certificate for every role, by name; `camera` may be cam1 and no other."""

    def __init__(self) -> None:
        self.own = {role: certificate() for role in ROLES}
        self.stranger = certificate()

    def entry(self, role: Role) -> KeyEntry:
        return KeyEntry(role=role, public=self.own[role].public, cameras=["cam1"] if role == "camera" else [])

    def security(self, *without: Role) -> Security:
        return Security(keys={role: self.entry(role) for role in ROLES if role not in without})

    def line(self, endpoint: Callable[[str], str]) -> Line:
        return make_line(endpoint, security=self.security())

    def gate(self, role: Role = "broker") -> Gate:
        return Gate(self.own[role], self.security().keys)

    def to(self, server: Role, own: Certificate) -> Credentials:
        return Credentials(own, self.own[server].public)


class Knocker(Peer):
    """A peer that sees how its handshakes end. `credentials` None: it has no key."""

    def __init__(self, context: Context, kind: int, endpoint: str, credentials: Credentials | None) -> None:
        self.socket = context.socket(kind)
        self.socket.linger = 0
        self.socket.reconnect_ivl = 20
        self.monitor = self.socket.get_monitor_socket(_WATCHED)
        curve.call(self.socket, endpoint, credentials)
        if kind == zmq.SUB:
            self.socket.subscribe(b"")
        self.socket.connect(endpoint)

    def event(self) -> int:
        """The next end of a handshake, or of a connection."""
        assert self.monitor.poll(round(PATIENCE * 1000)), "nobody opened, and nobody refused"
        return int(recv_monitor_message(self.monitor)["event"])

    def is_let_in(self) -> bool:
        return self.event() == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def has_been_let_in(self) -> bool:
        """Whether any handshake up to now came to a good end."""
        while self.monitor.poll(0):
            if recv_monitor_message(self.monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return True
        return False

    def wait_for(self, event: int) -> None:
        end = time.monotonic() + PATIENCE
        while self.event() != event:
            assert time.monotonic() < end, "that did not happen"

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        super().close()


@contextmanager
def knocking(context: Context, kind: int, endpoint: str, credentials: Credentials | None) -> Iterator[Knocker]:
    peer = Knocker(context, kind, endpoint, credentials)
    try:
        yield peer
    finally:
        peer.close()


@contextmanager
def guarded(line: Line, gate: Gate) -> Iterator[BrokerServer]:
    """A broker with a gate; it has a context of its own."""
    with running(BrokerServer(line, gate=gate)) as server:
        assert server.ready.wait(PATIENCE)
        yield server


def without(line: Line, keys: Keys, *roles: Role) -> Line:
    """The line after the keys of these roles were taken out of its file."""
    return msgspec.structs.replace(line, security=keys.security(*roles))


def wait_until(done: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, f"not in {PATIENCE:g} s: {what}"
        time.sleep(0.01)
