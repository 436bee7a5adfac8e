"""The crew: the processes of a trial, started together, sampled from outside, ended by their ids."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import psutil

from broker import parent

_END_SECONDS = 5.0


class BenchError(Exception):
    """A benchmark that cannot give figures; the text says which process failed and what it said last."""


class Usage(NamedTuple):
    """What a process has used: processor seconds since its start, resident bytes, open files (Windows: handles)."""

    cpu: float
    rss: int
    files: int


class Crew:
    """Processes by name. Their output goes to `<folder>/<name>.log`, whose end is shown when one fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, psutil.Popen] = {}
        self._heeding: list[psutil.Popen] = []
        self._logs: list[IO[bytes]] = []

    def start(self, name: str, arguments: list[str], *, heeds_board: bool = False) -> None:
        """Start one process; names are unique in a crew. One that heeds the board ends by itself when that says so."""
        log = (self._folder / f"{name}.log").open("wb")
        self._logs.append(log)
        # The pipe is how a child learns that the benchmark itself was killed (`broker.parent`).
        process = psutil.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {parent.VARIABLE: "1"},
        )
        self._processes[name] = process
        if heeds_board:
            self._heeding.append(process)

    def sample(self) -> dict[str, Usage]:
        """Usage of every process; raises BenchError if one is gone."""
        self.check()
        return {name: _usage(process) for name, process in self._processes.items()}

    def check(self) -> None:
        """Raise BenchError when a process has ended that should run."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise BenchError(f"{name} ended with exit code {process.returncode}\n{self.log_tail(name)}")

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines that process `name` wrote."""
        text = (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def log_tails(self) -> str:
        """The last lines of every process that wrote any."""
        tails = {name: self.log_tail(name, 4) for name in self._processes}
        return "\n".join(f"--- {name}:\n{tail}" for name, tail in tails.items() if tail)

    def wait(self, names: list[str], seconds: float) -> None:
        """Wait until these processes have ended by themselves, `seconds` at the longest."""
        psutil.wait_procs([self._processes[name] for name in names], timeout=seconds)

    def end(self, patience: float = 1.0) -> None:
        """End all: those that heed the board have `patience` seconds; then all are asked to, and in the end killed."""
        psutil.wait_procs(self._heeding, timeout=patience)
        running = [process for process in self._processes.values() if process.poll() is None]
        for process in running:
            process.terminate()
        _, stubborn = psutil.wait_procs(running, timeout=_END_SECONDS)
        for process in stubborn:
            process.kill()
        psutil.wait_procs(stubborn, timeout=_END_SECONDS)
        for process in self._processes.values():
            process.stdin.close()
        for log in self._logs:
            log.close()


@contextlib.contextmanager
def open_crew(folder: Path) -> Iterator[Crew]:
    """A crew that has ended when the block is left, however that happens."""
    crew = Crew(folder)
    try:
        yield crew
    finally:
        crew.end()


def wait_until(condition: Callable[[], object], crew: Crew, seconds: float, what: str) -> None:
    """Poll `condition()` until it holds; raises BenchError after `seconds`, or when a process of the crew has ended."""
    deadline = time.monotonic() + seconds
    check_at = 0.0
    while not condition():
        now = time.monotonic()
        if now > deadline:
            raise BenchError(f"after {seconds:g} s still no {what}\n{crew.log_tails()}")
        if now > check_at:
            # Rarely: asking the system about every process costs more than the condition does.
            check_at = now + 0.1
            crew.check()
        time.sleep(0.002)


def _usage(process: psutil.Process) -> Usage:
    with process.oneshot():
        times = process.cpu_times()
        files = process.num_fds() if psutil.POSIX else process.num_handles()
        return Usage(times.user + times.system, process.memory_info().rss, files)
