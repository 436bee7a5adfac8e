"""`gongwei up`: a whole line on this machine, supervised until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from broker import classes
from broker.document import dotted
from broker.ledger import LedgerError
from broker.line import Line
from broker.report import report
from ops import facts, inputs, plan, snapshot
from ops.facts import Facts
from ops.fleet import Fleet, signals
from ops.screen import Screen
from ops.snapshot import Snapshot
from ops.supervisor import Do, Stage

#: Seconds that the cameras wait for the models' sessions.
LONGEST_START: Final = 60.0


def warnings(line: Line, found: Mapping[str, Facts]) -> list[str]:
    """What will not do what the line file means, in words: models that no worker can load, models that lie here and are
    not named, and classes of the rules that no model knows. `found`: the facts of the line's models."""
    refused = [
        f"{dotted(('models', name, 'file'))}: no worker can load it: {told.refused}"
        for name, told in found.items()
        if told.refused
    ]
    unfiled = [
        f"{dotted(('models', name))}: names no file, so its workers are started elsewhere;"
        f' file = "{name}" runs the one that `workers models` lists'
        for name, model in line.models.items()
        if not model.file and inputs.here(name)
    ]
    unknown = classes.unknown(line, facts.class_names(found))
    return [*refused, *unfiled, *(one.text for one in unknown if not one.doubtful)]


def run(line: Line, path: Path, *, json: bool = False, live: bool = True, insecure: bool = False) -> int:
    """Run the line file at `path` until the operator ends it. Returns the exit code: 1 if one had to be killed."""
    specs = plan.specs(line, path, insecure=insecure)
    screen = Screen(Console(stderr=True), [spec.name for spec in specs], lambda: read(fleet), json=json, live=live)
    fleet = Fleet(specs, screen, held=[Stage.CAMERA])
    ledger = path.parent / line.ledger.path
    turn = Turn(line, fleet, screen)
    before, _ = counted(ledger)
    screen.start()
    try:
        for warning in warnings(line, facts.of_line(line, path.parent)):
            screen.say(warning, level="warning")
        with signals(fleet.interrupt):
            fleet.run(turn)
        screen.say(summary(counted(ledger), before, fleet.supervisor.restarts))
    finally:
        screen.close()
    return 1 if any(child.said is Do.KILL for child in fleet.supervisor.children.values()) else 0


def read(fleet: Fleet) -> Snapshot:
    """A look at all processes of `fleet`; callable from any thread."""
    return snapshot.take(fleet.supervisor.children.values(), fleet.pids())


class Turn:
    """What `up` does between two turns of supervision: let the cameras begin."""

    def __init__(self, line: Line, fleet: Fleet, screen: Screen) -> None:
        self._metrics = line.endpoints.metrics
        self._wanted = plan.sessions(line)
        self._fleet = fleet
        self._screen = screen
        self._began = time.monotonic()
        self._released = False

    def __call__(self) -> None:
        if not self._released and not self._fleet.interrupted:
            self._release()

    def _release(self) -> None:
        """Frames taken before the models are there would only expire; but a camera does not wait for ever."""
        waited = time.monotonic() - self._began
        if is_ready(self._screen.seen[0], self._wanted):
            self._screen.say(f"the line is ready: {sum(self._wanted.values())} sessions after {waited:.1f} s")
        elif not self._metrics:
            self._screen.say("endpoints.metrics is 0: whether the line is ready is not known, and it has no table")
        elif waited < LONGEST_START:
            return
        else:
            self._screen.say(f"not ready after {waited:.0f} s: the cameras begin all the same", level="warning")
        self._released = True
        self._fleet.supervisor.release()


def counted(ledger: Path) -> tuple[int, int]:
    """Frames joined and open in the ledger: what stays, however often the processes were started again."""
    try:
        told = report(ledger)
    except LedgerError:
        return 0, 0
    return told["joined"], told["open"]


def summary(now: tuple[int, int], before: int, restarts: int) -> str:
    """How it ended, for the frames of this run."""
    joined, unjoined = now
    return f"the line has ended: {joined - before} frames joined, {unjoined} not, {restarts} restarts"


def is_ready(seen: Snapshot, wanted: Mapping[str, int]) -> bool:
    """The broker knows its join and all sessions that were started here."""
    sessions = seen.sessions()
    return seen.broker.total("gongwei_join_up") > 0 and all(sessions.get(name, 0) >= n for name, n in wanted.items())
