"""A log that cannot be written (a full disk): every process goes on, and counts the lines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import zmq

from broker import line as line_file
from broker import log, metrics, wire
from broker.operator import Operator
from broker.wire import Ask, Key
from tests.conftest import free_port
from tests.peers import Context, Peer, hello, make_line
from workers.tiny import make

FULL = Path("/dev/full")
#: Milliseconds that a process may take to answer: a worker loads its libraries first.
PATIENCE = 60_000

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """The file of a line on free ports, without metrics."""
    line = make_line(lambda _: f"tcp://127.0.0.1:{free_port()}")
    line = msgspec.structs.replace(line, endpoints=msgspec.structs.replace(line.endpoints, metrics=0))
    path = tmp_path / "line.toml"
    path.write_text(line_file.to_toml(line), encoding="utf-8")
    return path


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours with a log on a full disk; it must end in order when it is asked to."""
    # Buffered, as it is where nobody asks for otherwise: what could not be written waits until the end.
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with FULL.open("wb") as full:
        process = subprocess.Popen([sys.executable, "-m", *command], stderr=full, env={**plain, "NO_COLOR": "1"})
    try:
        yield process
        assert process.poll() is None, "it has ended by itself"
        process.terminate()
        assert process.wait(20) == 0 or sys.platform == "win32"
    finally:
        process.kill()
        process.wait(20)


@contextmanager
def socket(context: Context, kind: int, *, bind: str = "", connect: str = "") -> Iterator[zmq.Socket[bytes]]:
    with context.socket(kind) as made:
        made.linger = 0
        made.bind(bind) if bind else made.connect(connect)
        yield made


def test_a_broker(described: Path, context: Context) -> None:
    line = line_file.load(described)
    with started("broker", "start", "--line", str(described)), ExitStack() as stack:
        camera = Peer(context, zmq.DEALER, line.endpoints.frontend)
        stack.callback(camera.close)
        camera.send(hello())
        camera.expect(wire.Welcome, PATIENCE / 1000)
        worker = stack.enter_context(socket(context, zmq.DEALER, connect=line.endpoints.backend))
        worker.send_multipart([b"no", b"message"])  # refused, with a log line
        operator = stack.enter_context(Operator(line.endpoints.control))
        for _ in range(3):
            assert operator.ask(wire.List()).sessions == []


def test_a_join(described: Path, context: Context) -> None:
    line = line_file.load(described)
    with (
        socket(context, zmq.ROUTER, bind=line.endpoints.egress) as broker,
        started("broker", "join", "--line", str(described)),
    ):
        assert broker.poll(PATIENCE)
        _, *segments = broker.recv_multipart()
        assert isinstance(wire.decode_message(segments), wire.JoinHello)


def test_a_recorder(described: Path, context: Context) -> None:
    line = line_file.load(described)
    with (
        socket(context, zmq.DEALER, connect=line.endpoints.pictures) as consumer,
        started("broker", "recorder", "--line", str(described)),
    ):
        consumer.send_multipart(wire.encode(Ask(key=Key("cam1", "b1", 0))))
        assert consumer.poll(PATIENCE)
        kind, header, _ = consumer.recv_multipart()
        assert wire.decode_message([kind, header]).found is False


def test_a_worker(tmp_path: Path, context: Context) -> None:
    backend = f"tcp://127.0.0.1:{free_port()}"
    make(tmp_path / "tiny.onnx")
    with (
        socket(context, zmq.ROUTER, bind=backend) as broker,
        started("workers", "start", "--model", f"tiny={tmp_path / 'tiny.onnx'}", "--backend", backend),
    ):
        assert broker.poll(PATIENCE)
        _, *segments = broker.recv_multipart()
        assert isinstance(wire.decode_message(segments), wire.Ready)


class Disk:
    """A stream to a disk that is full until it is not."""

    def __init__(self) -> None:
        self.full = True
        self.written = ""

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        self.written += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def test_lines_that_were_lost_are_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    disk: Any = Disk()
    monkeypatch.setattr(sys, "stderr", disk)
    log.configure(json=True)
    before = log.samples().get(("log_lines_lost_total",), 0.0)
    try:
        for _ in range(3):
            log.get("x").error("unheard")
        assert log.samples()["log_lines_lost_total",] == before + 3
        assert "log_lines_lost_total" in metrics.CATALOGUE
        disk.full = False
        log.get("x").info("heard")
        log.get("x").info("and on")
    finally:
        structlog.reset_defaults()
    lines = [msgspec.json.decode(line) for line in disk.written.splitlines()]
    assert [line["event"] for line in lines] == ["heard", "log lines could not be written", "and on"]
    assert lines[1]["lost"] >= 3


def test_a_stream_that_was_closed_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        log.configure(json=True)
    try:
        log.get("x").error("unheard")
    finally:
        structlog.reset_defaults()
