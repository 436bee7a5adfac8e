"""`gongwei rolling-restart`: the workers of a line let go and started again one after another, while frames flow.

Who starts a worker again is its supervisor (`gongwei up`, systemd): it only has to keep it alive. Before a worker is
let go, every model that it serves has a stand-in, so that a model with one worker is never without.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from broker.line import Line
from broker.operator import Operator
from broker.wire import List, Listed, SessionState, Stop
from ops import plan
from ops.stand_in import LOOK, StandIns


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
        """Restart every worker of `models`, or of all for none given. Raises RollingError, StandInError, Unanswered."""
        before = self._sessions()
        chosen = list(models) or list(dict.fromkeys(session.model for session in before))
        if missing := [name for name in chosen if all(session.model != name for session in before)]:
            raise RollingError(f"no worker of {', '.join(missing)} is registered: there is nothing to restart")
        workers = list(dict.fromkeys(worker for model in chosen for worker in workers_of(before, model)))
        done: list[Restarted] = []
        with closing(StandIns(self._line, self._path, wait=self._wait, say=self._say)) as spare:
            for number, worker in enumerate(workers):
                if stand_in:
                    spare.end(spare.others(models_of(before, workers[number:])))
                    spare.open(models_of(before, [worker]))
                done.append(self._restart(worker, before))
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
        models = models_of(before, [worker])
        self._wait(
            lambda now: all(open_sessions(now)[model] >= wanted[model] for model in models),
            f"{worker} ended and has not come back within {self._timeout:g} s: does a supervisor (gongwei up) run it?",
        )
        back = time.monotonic() - began
        self._say(f"{worker}: drained in {drained:.2f} s, back after {back:.2f} s")
        return Restarted(worker, drained, back)

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


def models_of(sessions: Iterable[SessionState], workers: Iterable[str]) -> list[str]:
    """The models that these workers serve, each once."""
    names = set(workers)
    return list(dict.fromkeys(one.model for one in sessions if one.worker in names))


def open_sessions(sessions: Iterable[SessionState]) -> Counter[str]:
    """Open sessions by model; those of stand-ins do not count."""
    return Counter(one.model for one in sessions if one.open and one.worker != plan.stand_in_name(one.model))
