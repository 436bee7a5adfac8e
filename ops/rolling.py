"""`gongwei rolling-restart`: the workers of a line let go and started again one after another, while frames flow.

Who starts a worker again is its supervisor (`gongwei up`, systemd): it only has to keep it alive. While a model's
workers go round, a stand-in of the model serves beside them, so that a model with one worker is never without; it loads
what the line file names now, which is how a new version of a model takes over.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from broker.line import Line
from broker.operator import Operator
from broker.wire import List, Listed, SessionState, Stop
from ops import plan
from ops.fleet import describe
from ops.process import Process

#: Seconds between two looks at the broker.
LOOK: Final = 0.1
#: Lines of a stand-in's log that are shown when it fails.
TAIL: Final = 5


class RollingError(Exception):
    """The restart cannot go on; the text says where it stopped and what still runs."""


class Restarted(NamedTuple):
    """One worker: seconds until it was drained, and until as many sessions as before were open again."""

    worker: str
    drained: float
    back: float


class Rolling:
    """One rolling restart of `models`. `timeout`: seconds for each step; `say` is told of every step."""

    def __init__(
        self, operator: Operator, line: Line, path: Path, *, timeout: float, say: Callable[[str], None]
    ) -> None:
        self._operator = operator
        self._line = line
        self._path = path
        self._timeout = timeout
        self._say = say

    def run(self, models: Iterable[str], *, stand_in: bool = True) -> list[Restarted]:
        """Restart every worker of `models`, or of all for none given. Raises RollingError and Unanswered."""
        before = self._sessions()
        chosen = list(models) or list(dict.fromkeys(session.model for session in before))
        if missing := [name for name in chosen if all(session.model != name for session in before)]:
            raise RollingError(f"no worker of {', '.join(missing)} is registered: there is nothing to restart")
        done: list[Restarted] = []
        for model in chosen:
            workers = [name for name in workers_of(before, model) if all(one.worker != name for one in done)]
            if not workers:
                continue
            with self._stand_in(model, stand_in):
                done += [self._restart(worker, before) for worker in workers]
        return done

    def _restart(self, worker: str, before: list[SessionState]) -> Restarted:
        began = time.monotonic()
        old = {session.session for session in before if session.worker == worker}
        # Of a version that was replaced the broker has let all workers go already.
        if old & {session.session for session in self._sessions()}:
            self._operator.ask(Stop(workers=[worker]))
        self._wait(
            lambda now: not old & {session.session for session in now},
            f"{worker} still has jobs in flight after {self._timeout:g} s; it ends when they are done",
        )
        drained = time.monotonic() - began
        wanted = open_sessions(before)
        models = {session.model for session in before if session.worker == worker}
        self._wait(
            lambda now: all(open_sessions(now)[model] >= wanted[model] for model in models),
            f"{worker} ended and has not come back within {self._timeout:g} s: does a supervisor (gongwei up) run it?",
        )
        back = time.monotonic() - began
        self._say(f"{worker}: drained in {drained:.2f} s, back after {back:.2f} s")
        return Restarted(worker, drained, back)

    @contextmanager
    def _stand_in(self, model: str, wanted: bool) -> Iterator[None]:
        entry = self._line.models.get(model)
        if not wanted or entry is None or not entry.file:
            if wanted:
                self._say(f"{model}: the line file names no file here, so it has no stand-in")
            yield
            return
        spec = plan.stand_in(model, entry, self._path)
        tail: deque[str] = deque(maxlen=TAIL)
        process = Process(spec.argv, tail.append, env=spec.env)
        name, began = plan.stand_in_name(model), time.monotonic()
        process.start()
        try:
            self._wait_open(name, entry.threads, process, tail)
            self._say(f"{model}: {name} is open after {time.monotonic() - began:.2f} s")
            yield
        finally:
            self._end(process, spec.grace)

    def _wait_open(self, name: str, threads: int, process: Process, tail: deque[str]) -> None:
        def is_open(now: list[SessionState]) -> bool:
            code = process.poll()
            if code is not None:
                said = "\n".join(tail)
                raise RollingError(f"{name} ended ({describe(code)}); no worker was stopped for it:\n{said}")
            return sum(session.open for session in now if session.worker == name) >= threads

        self._wait(is_open, f"{name} is not open after {self._timeout:g} s; no worker was stopped for it")

    def _end(self, process: Process, grace: float) -> None:
        """The stand-in finishes what it has, as at any SIGTERM."""
        if process.poll() is None:
            process.ask()
        deadline = time.monotonic() + grace
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(LOOK)
        process.kill()
        process.close()

    def _wait(self, done: Callable[[list[SessionState]], bool], failure: str) -> None:
        deadline = time.monotonic() + self._timeout
        while not done(self._sessions()):
            if time.monotonic() >= deadline:
                raise RollingError(failure)
            time.sleep(LOOK)

    def _sessions(self) -> list[SessionState]:
        listed: Listed = self._operator.ask(List())
        return listed.sessions


def workers_of(sessions: Iterable[SessionState], model: str) -> list[str]:
    """The workers that have a session of `model`, by name; stand-ins aside."""
    names = {one.worker for one in sessions if one.model == model and one.worker != plan.stand_in_name(model)}
    return sorted(names)


def open_sessions(sessions: Iterable[SessionState]) -> Counter[str]:
    """Open sessions by model; those of stand-ins do not count."""
    return Counter(one.model for one in sessions if one.open and one.worker != plan.stand_in_name(one.model))
