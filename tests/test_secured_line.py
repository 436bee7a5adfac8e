"""A line with keys in real processes, started by their commands; and what strangers can do to its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from broker import keys as key_files
from broker.curve import Credentials
from broker.line import KeyEntry, Line, Role, Security, to_toml
from clients.camera import Camera
from clients.errors import CameraError, CameraTimeout
from tests import hostile
from tests.conftest import free_port
from tests.processes import NAMES, QUIET, Processes
from tests.secured import ROLES
from tests.test_end_to_end import assert_reconciled, spots

pytestmark = pytest.mark.slow

#: Growth of a process's memory in bytes that a stranger may cause.
GROWTH = 64 << 20


class Secured(Processes):
    """Processes with a key each. The line file alone tells them where it is."""

    def __init__(self, folder: Path, transport: str, cameras: list[str]) -> None:
        self.transport = transport
        super().__init__(folder, {"det": "fake:delay=0.001"}, cameras)

    def _line(self, cameras: list[str], settings: dict[str, Any]) -> Line:
        line = super()._line(cameras, settings)
        ends = {name: self._endpoint(name) for name in NAMES}
        certificates = {
            name: key_files.create(self.folder / "keys", name) for name in (*ROLES[:4], *cameras, *ROLES[5:])
        }
        listed = {
            name: KeyEntry(
                role="camera" if name in cameras else _role(name),
                public=made.public,
                cameras=[name] if name in cameras else [],
            )
            for name, made in certificates.items()
        }
        endpoints = msgspec.structs.replace(line.endpoints, **ends)
        return msgspec.structs.replace(line, endpoints=endpoints, security=Security(keys=listed))

    def _endpoint(self, name: str) -> str:
        return f"ipc://{self.folder / name}" if self.transport == "ipc" else f"tcp://127.0.0.1:{free_port()}"

    def start_worker(self, model: str, number: int = 0) -> None:
        name = f"{model}-{number}"
        source = f"{model}={self.models[model]}"
        self.start(name, "workers", "start", "--model", source, "--line", str(self.path), "--name", name)

    def credentials(self, name: str, server: Role = "broker") -> Credentials:
        assert self.line.security is not None
        own = key_files.read(self.folder / "keys" / f"{name}{key_files.SECRET}")
        return Credentials(own, self.line.security.keys[server].public)

    def camera(self, name: str, key: str = "", **settings: Any) -> Camera:
        credentials = self.credentials(key or name)
        return Camera(name, endpoint=self.line.endpoints.frontend, deadline=60.0, credentials=credentials, **settings)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m words... --line FILE` to its end."""
        command = [sys.executable, "-m", *words, "--line", str(self.path)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**os.environ, **QUIET}, check=False
        )

    def rewrite(self, line: Line) -> None:
        """At once, as an editor does: nobody reads half a file."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(to_toml(line), encoding="utf-8")
        fresh.replace(self.path)


def _role(name: str) -> Role:
    return next(role for role in ROLES if role == name)


@pytest.fixture
def secured(tmp_path: Path, transport: str) -> Iterator[Secured]:
    if transport == "inproc":
        pytest.skip("processes do not meet over inproc")
    line = Secured(tmp_path, transport, ["cam1", "cam2"])
    with line:
        yield line


def test_frames_flow_and_strangers_do_not(secured: Secured, tmp_path: Path) -> None:
    secured.start("recorder", "broker", "recorder", "--line", str(secured.path))
    secured.start_line()
    kept = tmp_path / secured.line.recorder.folder
    with secured.camera("cam1") as camera:

        def picture_kept() -> bool:
            camera.send(spots(0), timeout=60.0)
            return any(kept.rglob("*.jpg"))

        secured.wait("the recorder keeps a picture", picture_kept)
        assert camera.flush(60.0)
        frames = camera.stats.complete
    with pytest.raises(CameraError, match="may not use this name"), secured.camera("cam2", key="cam1") as other:
        other.send(spots(0), timeout=20.0)
    for credentials in (None, Credentials(key_files.create(tmp_path, "stranger"), secured.credentials("cam1").server)):
        end = secured.line.endpoints.frontend
        stranger = Camera("cam2", endpoint=end, deadline=0.5, credentials=credentials)
        with pytest.raises(CameraTimeout), stranger:
            stranger.send(spots(0), timeout=1.0)
    saved = tmp_path / "saved"
    watched = secured.command("clients", "watch", "--since", "0", "--frames", str(frames), "--save", str(saved))
    assert watched.returncode == 0, watched.stderr
    assert any(saved.rglob("*.jpg"))
    assert "refused at the door" in secured.log("broker")
    assert secured.report()["cameras"].keys() == {"cam1"}
    assert_reconciled(secured.report(), frames, 1)


def test_keys_rotate_while_frames_flow(secured: Secured) -> None:
    secured.start_line()
    line, made = secured.line, key_files.create(secured.folder / "keys", "cam1-new")
    assert line.security is not None
    with secured.camera("cam1") as old:
        old.send(spots(0), timeout=60.0)
        listed = line.security.keys | {"cam1-new": KeyEntry(role="camera", public=made.public, cameras=["cam1"])}
        both = msgspec.structs.replace(line, security=Security(keys=listed))
        secured.rewrite(both)
        assert _reload(secured) == 0
        assert old.flush(60.0)
    with secured.camera("cam1", key="cam1-new") as new:
        new.send(spots(1), timeout=60.0)
        del listed["cam1"]
        secured.rewrite(msgspec.structs.replace(line, security=Security(keys=listed)))
        assert _reload(secured) == 0
        new.send(spots(2), timeout=60.0)
        assert new.flush(60.0)
    with pytest.raises(CameraTimeout), secured.camera("cam1") as gone:
        gone.deadline = 0.0
        gone.send(spots(3), timeout=1.0)
    assert secured.report()["joined"] == 3


def _reload(secured: Secured) -> int:
    command = [sys.executable, "-m", "broker", "reload", str(secured.path)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def test_a_worker_without_the_workers_key_gets_no_job(secured: Secured) -> None:
    secured.start("join", "broker", "join", "--line", str(secured.path))
    secured.start("broker", "broker", "start", "--line", str(secured.path))
    key = str(secured.folder / "keys" / "cam1.key_secret")
    source = f"det={secured.models['det']}"
    secured.start("thief", "workers", "start", "--model", source, "--line", str(secured.path), "--key", key)
    secured.wait("the broker refuses it", lambda: "wrong_role" in secured.log("broker"))
    secured.start_worker("det")
    with secured.camera("cam1") as camera:
        camera.send(spots(0), timeout=60.0)
        assert camera.flush(60.0)
    assert "session open" in secured.log("det-0")
    assert "session open" not in secured.log("thief")


def test_only_an_operators_key_lists_and_stops_workers(secured: Secured) -> None:
    secured.start_line()
    secured.wait("the session is open", lambda: "session open" in secured.log("det-0"))
    key = str(secured.folder / "keys" / "cam1.key_secret")
    refused = secured.command("workers", "list", "--timeout", "1", "--key", key)
    assert (refused.returncode, "is this operator's listed?" in refused.stderr) == (1, True)
    listed = secured.command("workers", "list", "--json")
    assert [one["worker"] for one in json.loads(listed.stdout)["sessions"]] == ["det-0"], listed.stderr
    assert secured.command("workers", "stop", "--all", "--key", key).returncode == 1
    assert secured.running["det-0"].poll() is None
    stopped = secured.command("workers", "stop", "--all")
    assert stopped.returncode == 0, stopped.stderr
    assert secured.running["det-0"].wait(20) == 0


# --- strangers and memory --------------------------------------------------------------------------------------------

ATTACKS = {
    "null": lambda: (hostile.greeting("NULL") + hostile.ready("DEALER"), hostile.endless_parts()),
    "curve": lambda: (hostile.greeting("CURVE"), hostile.endless_parts()),
    "command": lambda: (hostile.greeting("CURVE"), hostile.endless_command(1 << 40)),
    "long command": lambda: (hostile.greeting("CURVE"), hostile.endless_command(30 << 20)),
    "longer command": lambda: (hostile.greeting("CURVE"), hostile.endless_command(120 << 20)),
}


class Peak(threading.Thread):
    """The most memory that a process had while the context was open, in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.before = self.most = process.memory_info().rss
        self._process = process
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.005):
            self.most = max(self.most, self._process.memory_info().rss)

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self.join()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_stranger_does_not_fill_the_brokers_memory(secured: Secured, attack: str) -> None:
    secured.start("broker", "broker", "start", "--line", str(secured.path))
    secured.wait("the broker is open", lambda: "broker open" in secured.log("broker"))
    with Peak(psutil.Process(secured.running["broker"].pid)) as peak:
        for name in ("frontend", "backend", "egress", "control", "copies"):
            for _ in range(3):
                beginning, stream = ATTACKS[attack]()
                hostile.pour(getattr(secured.line.endpoints, name), beginning, stream, most=128 << 20)
    assert secured.running["broker"].poll() is None
    assert peak.most - peak.before < GROWTH
