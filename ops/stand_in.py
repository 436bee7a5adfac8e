"""Stand-ins: while the workers of a model are started again, one worker more of it serves beside them.

It loads what the line file names now, which is how a new version of a model takes over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from broker.line import Line, Model
from broker.wire import SessionState
from ops import plan
from ops.fleet import describe
from ops.process import Process

#: Seconds between two looks.
LOOK: Final = 0.1
#: Lines of a stand-in's log that are shown when it fails.
TAIL: Final = 5

Wait = Callable[[Callable[[list[SessionState]], bool], str], None]


class StandInError(Exception):
    """A stand-in did not start; the text says why, with the end of its log."""


class StandIn:
    """The stand-in of `model`, whose `entry` the line file at `path` has."""

    def __init__(self, model: str, entry: Model, path: Path) -> None:
        self.name = plan.stand_in_name(model)
        self._threads = entry.threads
        self._spec = plan.stand_in(model, entry, path)
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._process = Process(self._spec.argv, self._tail.append, env=self._spec.env)

    def start(self) -> None:
        self._process.start()

    def is_open(self, now: list[SessionState]) -> bool:
        """Whether all its sessions are among the open ones `now`. Raises StandInError when the process has ended."""
        code = self._process.poll()
        if code is not None:
            said = "\n".join(self._tail)
            raise StandInError(f"{self.name} ended ({describe(code)}); no worker was stopped for it:\n{said}")
        return sum(session.open for session in now if session.worker == self.name) >= self._threads

    def end(self) -> None:
        """It finishes what it has, as at any SIGTERM, and is killed after its time."""
        if self._process.poll() is None:
            self._process.ask()
        deadline = time.monotonic() + self._spec.grace
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(LOOK)
        self._process.kill()
        self._process.close()


class StandIns:
    """Those that run. `wait(done, failure)` looks at the sessions until `done`, and raises with the text `failure` when
    that takes too long; `say` is told of every step."""

    def __init__(self, line: Line, path: Path, *, wait: Wait, say: Callable[[str], None]) -> None:
        self._line = line
        self._path = path
        self._wait = wait
        self._say = say
        self._running: dict[str, StandIn | None] = {}  # None: it can have none here

    def open(self, models: Iterable[str]) -> None:
        """Return when each of `models` has a stand-in that is open, or can have none here. Raises StandInError, and
        what `wait` does."""
        for model in models:
            if model not in self._running:
                self._running[model] = self._opened(model)

    def end(self, models: Iterable[str]) -> None:
        """End the stand-ins of `models`, those that have any."""
        for model in models:
            running = self._running.pop(model, None)
            if running is not None:
                running.end()

    def others(self, models: Iterable[str]) -> list[str]:
        """The models that have been opened and are not among `models`."""
        kept = set(models)
        return [model for model in self._running if model not in kept]

    def close(self) -> None:
        """End them all."""
        self.end(list(self._running))

    def _opened(self, model: str) -> StandIn | None:
        entry = self._line.models.get(model)
        if entry is None or not entry.file:
            self._say(f"{model}: the line file names no file here, so it has no stand-in")
            return None
        made, began = StandIn(model, entry, self._path), time.monotonic()
        made.start()
        try:
            self._wait(made.is_open, f"{made.name} is not open within --timeout; no worker was stopped for it")
        except BaseException:
            made.end()
            raise
        self._say(f"{model}: {made.name} is open after {time.monotonic() - began:.2f} s")
        return made
