"""What the service manager hears: over real datagram sockets, from real processes, and no more from a stuck loop."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from broker.gate import Gate
from broker.line import CameraEntry, Line, Model, Route, Station, to_toml
from broker.notifier import AGAIN, ALIVE, EXTEND, READY, STOPPING, TIMES, Notifier, from_environment
from broker.server import BrokerServer
from ops import plan
from ops.supervisor import Spec
from tests.conftest import free_port
from tests.peers import running
from tests.secured import PATIENCE, Keys, wait_until
from workers import tiny

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no AF_UNIX here: nobody is told anything")

#: Seconds without a word after which a process would be ended, in these tests.
WITHIN = 0.4
ROOT = Path(__file__).parents[1]


class Manager:
    """The end at which a service manager listens. `received` waits for a word; `missed` says that none comes."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def received(self, timeout: float = 60.0) -> str:
        self.socket.settimeout(timeout)
        return self.socket.recv(4096).decode()

    def wait_for(self, word: str) -> None:
        while self.received() != word:
            pass

    def waiting(self) -> list[str]:
        """What has come, and was not read."""
        found = []
        self.socket.settimeout(0.0)
        try:
            while True:
                found.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return found

    def is_silent(self) -> bool:
        """Of a process that speaks every `WITHIN / TIMES` seconds."""
        self.waiting()
        try:
            return not self.received(2 * WITHIN)
        except TimeoutError:
            return True


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    with closing(made.socket):
        yield made


# --- the words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_each_word_is_a_datagram(tmp_path: Path, abstract: bool) -> None:
    if abstract and sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    manager = Manager(f"@gongwei-{secrets.token_hex(6)}" if abstract else str(tmp_path / "notify"))
    with closing(manager.socket):
        notifier = Notifier(manager.address, within=8.0)
        notifier.extend(1.5)
        notifier.ready(100.0)
        notifier.stopping()
        assert manager.waiting() == [f"{EXTEND}=1500000", READY, STOPPING]


def test_a_loop_says_that_it_lives_four_times_in_its_time(manager: Manager) -> None:
    notifier = Notifier(manager.address, within=8.0)
    notifier.alive(1000.0)
    assert manager.waiting() == [], "not before it serves"
    notifier.ready(1000.0)
    for tick in range(1, 101):
        notifier.alive(1000.0 + tick / 10)
    assert manager.waiting() == [READY] + [ALIVE] * 5 and TIMES == 4


def test_who_is_not_watched_says_only_that_it_serves_and_ends(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    notifier.ready(0.0)
    notifier.alive(1e6)
    notifier.stopping()
    assert manager.waiting() == [READY, STOPPING]


def test_what_was_not_taken_is_said_again(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notifier = Notifier(address, within=8.0)
    notifier.ready(0.0)  # nobody listens
    notifier.stopping()
    notifier.ready(0.0)
    manager = Manager(address)
    with closing(manager.socket):
        notifier.alive(AGAIN / 2)
        assert manager.waiting() == []
        notifier.alive(AGAIN)
        notifier.alive(AGAIN + 2.0)
        assert manager.waiting() == [READY, ALIVE]


def test_a_service_manager_that_does_not_read_holds_nobody_up(manager: Manager) -> None:
    notifier = Notifier(manager.address, within=0.001)
    notifier.ready(0.0)
    for turn in range(5000):
        notifier.alive(1.0 + turn)
    waiting = manager.waiting()
    assert 1 < len(waiting) < 5000 and waiting[0] == READY
    notifier.alive(1e6)
    assert manager.waiting() == [ALIVE]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, []),
        ({"WATCHDOG_USEC": "400000"}, []),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, []),
        ({"NOTIFY_SOCKET": "@"}, []),
        ({"NOTIFY_SOCKET": "HERE"}, [READY]),
        ({"NOTIFY_SOCKET": "HERE", "WATCHDOG_USEC": "400000"}, [READY, ALIVE]),
        ({"NOTIFY_SOCKET": "HERE", "WATCHDOG_USEC": "400000", "WATCHDOG_PID": "OURS"}, [READY, ALIVE]),
        ({"NOTIFY_SOCKET": "HERE", "WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"}, [READY]),
        ({"NOTIFY_SOCKET": "HERE", "WATCHDOG_USEC": "-1"}, [READY]),
        ({"NOTIFY_SOCKET": "HERE", "WATCHDOG_USEC": "soon"}, [READY]),
    ],
)
def test_the_environment_says_who_is_told(manager: Manager, environ: dict[str, str], words: list[str]) -> None:
    meant = {"HERE": manager.address, "OURS": str(os.getpid())}
    given = {name: meant.get(value, value) for name, value in environ.items()} | {"PATH": "/bin"}
    notifier = from_environment(given)
    notifier.ready(0.0)
    notifier.alive(0.1)
    assert manager.waiting() == words
    assert given == {"PATH": "/bin"}, "a process that this one starts has nothing to say"


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    tiny.make(path)
    return path


def planned(folder: Path, model: Path) -> tuple[Line, dict[str, Spec]]:
    """A line of one camera and one worker, and its processes by the first word of their names."""
    line = Line(
        stations={"press": Station()},
        cameras={"top": CameraEntry(station="press", source="synthetic:", rate=1.0, deadline=1.0)},
        models={"tiny": Model(file=str(model))},
        routes={"top": Route(models=["tiny"])},
    )
    names = ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control")
    ends: dict[str, Any] = {name: f"tcp://127.0.0.1:{free_port()}" for name in names}
    line = msgspec.structs.replace(line, endpoints=msgspec.structs.replace(line.endpoints, metrics=0, **ends))
    path = folder / "line.toml"
    path.write_text(to_toml(line), encoding="utf-8")
    return line, {spec.name.split("/")[0]: spec for spec in plan.specs(line, path)}


@contextmanager
def started(spec: Spec, manager: Manager) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, **spec.env, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(round(WITHIN * 1e6))}
    process = subprocess.Popen(spec.argv, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize(
    ("name", "door"),
    [("broker", "frontend"), ("join", "catchup"), ("recorder", "pictures"), ("worker", ""), ("camera", "")],
)
def test_a_process_says_that_it_serves_lives_and_ends(
    name: str, door: str, manager: Manager, model: Path, tmp_path: Path
) -> None:
    line, specs = planned(tmp_path, model)
    with started(specs[name], manager) as process:
        first = manager.received()
        assert first.startswith(EXTEND) == (name == "worker"), "loading a model may take long"
        assert (manager.received() if name == "worker" else first) == READY
        if door:
            port = int(getattr(line.endpoints, door).rpartition(":")[2])
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        assert [manager.received() for _ in range(3)] == [ALIVE] * 3

        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it stands still")
        assert manager.is_silent()
        process.send_signal(signal.SIGCONT)
        manager.wait_for(ALIVE)

        process.send_signal(signal.SIGTERM)
        manager.wait_for(STOPPING)
        assert process.wait(30) == (0 if name != "camera" else 1), "the camera's broker was never there"


class Held(Gate):
    """A gate at which the broker's loop can be held up."""

    def __init__(self, keys: Keys) -> None:
        super().__init__(keys.own["broker"], keys.security().keys)
        self.go_on = threading.Event()
        self.go_on.set()

    def tend(self) -> None:
        assert self.go_on.wait(60)
        super().tend()


def test_a_loop_that_is_stuck_falls_silent(manager: Manager, endpoint: Callable[[str], str], transport: str) -> None:
    if transport == "inproc":
        pytest.skip("inproc has no gate to be stuck at")
    keys = Keys()
    gate = Held(keys)
    with running(BrokerServer(keys.line(endpoint), gate=gate, notifier=Notifier(manager.address, WITHIN))):
        manager.wait_for(ALIVE)
        gate.go_on.clear()
        try:
            wait_until(lambda: manager.is_silent(), "the loop is held up")
        finally:
            gate.go_on.set()
        manager.wait_for(ALIVE)
    assert STOPPING in manager.waiting()
