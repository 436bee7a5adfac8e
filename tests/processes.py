"""A line of real processes for tests that kill them: started by their commands, on free tcp ports of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from broker.line import Endpoints, Line, Route, Station, from_flags, to_toml
from broker.line import Model as LineModel
from broker.report import report
from tests.conftest import free_port

NAMES = ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control")
QUIET = {"GONGWEI_LOG": "json", "NO_COLOR": "1"}


class Processes:
    """Processes by name; each can be killed and started again. What is left at the end is killed, by its own id."""

    def __init__(self, folder: Path, models: dict[str, Path | str], cameras: list[str], **line: Any) -> None:
        self.folder = folder
        self.models = models
        self.line = self._line(cameras, line)
        self.path = folder / "line.toml"
        self.path.write_text(to_toml(self.line), encoding="utf-8")
        self.ledger = folder / self.line.ledger.path
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.commands: dict[str, list[str]] = {}

    def _line(self, cameras: list[str], settings: dict[str, Any]) -> Line:
        line = from_flags(cameras=cameras, models=list(self.models), deadline=60.0)
        ends: dict[str, Any] = {name: f"tcp://127.0.0.1:{free_port()}" for name in NAMES}
        endpoints = msgspec.structs.replace(Endpoints(), sessions=(20000, 29999), metrics=0, **ends)
        return msgspec.structs.replace(
            line,
            endpoints=endpoints,
            stations={"station": Station()},
            models={name: LineModel() for name in self.models},
            routes={name: Route(models=list(self.models)) for name in line.cameras},
            **settings,
        )

    def start(self, name: str, *command: str) -> None:
        """Start `python -m command...` as process `name`; its log goes to a file in the folder."""
        self.commands[name] = list(command)
        self.restart(name)

    def restart(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *self.commands[name]], stderr=output, stdout=output, env={**os.environ, **QUIET}
            )

    def start_line(self, workers: int = 1) -> None:
        self.start("join", "broker", "join", "--line", str(self.path))
        self.start("broker", "broker", "start", "--line", str(self.path))
        for model in self.models:
            for number in range(workers):
                self.start_worker(model, number)

    def start_worker(self, model: str, number: int = 0) -> None:
        name = f"{model}-{number}"
        source = f"{model}={self.models[model]}"
        backend = self.line.endpoints.backend
        self.start(name, "workers", "start", "--model", source, "--backend", backend, "--name", name)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait(10)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def report(self) -> dict[str, Any]:
        return report(self.ledger)

    def wait(self, what: str, done: Callable[[], bool], timeout: float = 60.0) -> None:
        """Until `done()`; a failure shows the end of every log."""
        end = time.monotonic() + timeout
        while not done():
            if time.monotonic() > end:
                logs = "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))
                raise AssertionError(f"not in {timeout:g} s: {what}\n{logs}")
            time.sleep(0.02)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
