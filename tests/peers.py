"""Lean peers of a broker for tests: raw sockets that speak the protocol, one message at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import zmq

from broker import line as line_file
from broker import wire
from broker.line import Endpoints, Line
from broker.server import BrokerServer

JPEG = b"\xff\xd8\xff\xe0"
Context = zmq.Context[zmq.Socket[bytes]]


class Peer:
    """A DEALER (or another socket) with a receive that can not hang."""

    def __init__(self, context: Context, kind: int, endpoint: str) -> None:
        self.socket = context.socket(kind)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def send(self, message: wire.Message, *payload: bytes) -> None:
        self.socket.send_multipart([*wire.encode(message), *payload])

    def raw(self, *segments: bytes) -> None:
        self.socket.send_multipart(segments)

    def receive(self, timeout: float = 5.0) -> Any:
        assert self.socket.poll(round(timeout * 1000)), "nothing came"
        return wire.decode_message(self.socket.recv_multipart())

    def expect(self, kind: type[Any], timeout: float = 5.0) -> Any:
        """The next message of this type; others before it are passed over."""
        end = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.0, end - time.monotonic()))
            if isinstance(message, kind):
                return message

    def close(self) -> None:
        self.socket.close(0)


class Join(Peer):
    """A join that commits everything at once, in memory."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(context, zmq.DEALER, endpoint)
        self.results: list[wire.Outcome] = []
        self.expected: list[wire.Expectation] = []
        self.send(wire.JoinHello(epoch="join"))
        self.line: wire.LineText = self.expect(wire.LineText)

    def commit(self, timeout: float = 5.0) -> Any:
        """Take the next message of the broker and ack it."""
        message = self.receive(timeout)
        items = [*getattr(message, "items", []), *getattr(message, "boots", []), *getattr(message, "skips", [])]
        self.results += [item for item in items if isinstance(item, wire.Outcome)]
        self.expected += [item for item in items if isinstance(item, wire.Expectation)]
        if items:
            self.send(wire.Jack(epoch=message.epoch, tickets=[item.ticket for item in items]))
        return message

    def commit_until(self, done: Callable[[], bool], timeout: float = 5.0) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, "the join did not hear it in time"
            if self.socket.poll(50):
                self.commit()


def make_line(endpoint: Callable[[str], str], **settings: Any) -> Line:
    """A line with cam1 (inspect), cam2 (monitor) and the model det, on endpoints of one transport."""
    names = ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control")
    line = line_file.from_flags(cameras=["cam1", "cam2:monitor"], models=["det"], deadline=5.0)
    sessions = settings.pop("sessions", (20000, 29999))
    endpoints = msgspec.structs.replace(Endpoints(), **{name: endpoint(name) for name in names}, sessions=sessions)
    return msgspec.structs.replace(line, endpoints=endpoints, **settings)


@contextmanager
def running(server: Any) -> Iterator[Any]:
    """Any of our servers in a thread of its own; what it raised is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=10)
        assert not thread.is_alive(), "the server does not stop"
    if raised:
        raise raised[0]


@contextmanager
def broker(line: Line, context: Context) -> Iterator[BrokerServer]:
    with running(BrokerServer(line, context=context)) as server:
        assert server.ready.wait(5)
        yield server


def frame(seq: int = 0, *, boot: str = "b1", camera: str = "cam1", **fields: Any) -> wire.Frame:
    known: dict[str, Any] = {
        "key": wire.Key(camera, boot, seq),
        "policy": "inspect",
        "encoding": "jpeg",
        "shape": [1, 1, 3],
        "len": 4,
        "age": 0.0,
        "budget": 5.0,
    }
    return wire.Frame(**(known | fields))


def hello(boot: str = "b1", camera: str = "cam1", **fields: Any) -> wire.Hello:
    known: dict[str, Any] = {"camera": camera, "boot": boot, "protocol": wire.PROTOCOL}
    return wire.Hello(**(known | fields))


def ready(session: str = "s1", *, worker: str = "w1", **fields: Any) -> wire.Ready:
    known: dict[str, Any] = {
        "worker": worker,
        "session": session,
        "model": "det",
        "sha256": "",
        "max_batch": 1,
        "exec_timeout": 1.0,
        "grant": 2,
    }
    return wire.Ready(**(known | fields))


def beat(worker: str, session: str, grant: int = 2) -> wire.Beat:
    return wire.Beat(
        worker=worker,
        sessions=[wire.SessionBeat(session=session, started=0, completed=0, exec_age=0.0, grant=grant)],
    )
