"""The cast: the processes of a run by name. Each can be killed, stopped, continued, ended; what ends starts again.

All methods belong to one thread; the logs of the processes are read by `ops.process`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import psutil

from ops.process import Process

#: How the log says that a session of a worker has its data socket.
_SERVING: Final = '"session open"'
#: What a server says at its start, before it hears a signal.
_EARLY: Final = "insecure: whoever reaches"
#: How a watchdog's tracebacks begin.
_TIMEOUT: Final = "Timeout ("
#: Lines of a process's log that are kept for a report.
_KEPT: Final = 12
#: Seconds that an orderly end may take before the process is killed.
PATIENCE: Final = 20.0
_QUIET: Final = {"GONGWEI_LOG": "json", "NO_COLOR": "1"}


class Player:
    """One process of the cast. `since`: monotonic start; `spoke`: its log has begun, and it can be asked to end;
    `serving`: a worker said so; `dumping`: its watchdog has begun to write tracebacks (CPython 3.12 may break off there
    with SIGSEGV, for the threads go on meanwhile); `strained`: it was stopped, or one of its calls was made to hang, so
    that its own watchdog may end it; `excused`: it was asked to end before it could know how."""

    def __init__(self, name: str, role: str, argv: tuple[str, ...], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.role = role
        self.argv = argv
        self.since = 0.0
        self.serving = False
        self.spoke = False
        self.dumping = False
        self.strained = False
        self.stopped = False
        self.ending_by: float | None = None
        self.excused = False
        self.tail: deque[str] = deque(maxlen=_KEPT)
        self._log = log
        self._env = {**_QUIET, **env}
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start the command, with a cold interpreter. Raises OSError."""
        self.serving = self.strained = self.stopped = self.spoke = self.excused = self.dumping = False
        self.ending_by = None
        with self._log.open("a", encoding="utf-8") as log:
            log.write("--- start\n")
        self._process = Process(self.argv, self._line, env=self._env)
        self._process.start()
        self.since = time.monotonic()

    def poll(self) -> int | None:
        """The exit code of a process that has ended by now."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self.reap()

    def reap(self) -> None:
        """After its end: close the pipes."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def stop(self) -> None:
        """Let it not run for now: SIGSTOP, and what Windows has for it."""
        if self._process is not None and self._process.pid is not None:
            self.strained = self.stopped = True
            psutil.Process(self._process.pid).suspend()

    def go_on(self) -> None:
        """Let it run again."""
        if self._process is not None and self._process.pid is not None and self.stopped:
            psutil.Process(self._process.pid).resume()
        self.stopped = False

    def ask(self, patience: float = PATIENCE) -> None:
        """Ask for an orderly end; it is killed when that takes longer than `patience` seconds."""
        self.go_on()
        if self._process is not None and self.ending_by is None:
            self.ending_by = time.monotonic() + patience
            self.excused = not self.spoke
            self._process.ask()

    def _line(self, text: str) -> None:
        """From a reader's thread: one line of the log."""
        self.spoke = self.spoke or _EARLY not in text
        if _SERVING in text:
            self.serving = True
        self.dumping = self.dumping or text.startswith(_TIMEOUT)
        self.tail.append(text)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")


class Cast:
    """Processes by name. `on_start` is told of each start, before it.

    `exits`: why processes ended that nobody killed, by (role, reason); `crashes`: those that no fault explains, with
    the end of their log.
    """

    def __init__(self, folder: Path, explain: Callable[[Player, int], str]) -> None:
        """`explain(player, exit code)`: the fault that made a process end by itself; empty: none."""
        self.players: dict[str, Player] = {}
        self.exits: Counter[str] = Counter()
        self.crashes: list[str] = []
        self.over: set[str] = set()
        self._folder = folder
        self._explain = explain
        self._on_start: Callable[[str], None] = lambda name: None

    def __enter__(self) -> Cast:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened, no process outlives the run."""
        for player in self.players.values():
            player.kill()

    def before_start(self, call: Callable[[str], None]) -> None:
        """`call(name)` before each start of a process."""
        self._on_start = call

    def add(self, name: str, role: str, argv: tuple[str, ...], env: Mapping[str, str] | None = None) -> None:
        """A new process, started now."""
        self.players[name] = Player(name, role, argv, self._folder / f"{name}.log", env or {})
        self.start(name)

    def start(self, name: str) -> None:
        self._on_start(name)
        self.players[name].start()

    def kill(self, name: str) -> None:
        """SIGKILL and, at once, a new start."""
        self.players[name].kill()
        self.start(name)

    def end(self, name: str, patience: float = PATIENCE) -> None:
        """Ask for an orderly end; no new start."""
        self.over.add(name)
        self.players[name].ask(patience)

    def turn(self, now: float) -> list[str]:
        """Take note of ends, and start again what is to run; the names of what was started."""
        started = []
        for player in self.players.values():
            if not player.running:
                continue
            if (code := player.poll()) is None:
                if player.ending_by is not None and now >= player.ending_by:
                    self._note(player, "did not end in order and was killed", None)
                    player.kill()
                else:
                    continue
            else:
                in_order = player.ending_by is not None and (code == 0 or player.excused)
                player.reap()
                if not in_order:
                    self._note(player, f"exit code {code}", code)
            if player.name not in self.over:
                self.start(player.name)
                started.append(player.name)
        return started

    def is_well(self) -> bool:
        """Every process runs and has spoken, and every worker serves."""
        return all(
            player.running and player.spoke and not player.stopped and (player.serving or player.role != "worker")
            for player in self.players.values()
        )

    def running(self, role: str) -> list[str]:
        """Names of the processes of a role that run."""
        return [player.name for player in self.players.values() if player.role == role and player.running]

    def _note(self, player: Player, what: str, code: int | None) -> None:
        cause = self._explain(player, code) if code is not None else ""
        if cause:
            self.exits[cause] += 1
        else:
            tail = "\n".join(player.tail)
            self.crashes.append(f"{player.name} {what}\n{tail}")
