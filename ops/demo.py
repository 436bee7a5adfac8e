"""`gongwei demo`: a whole line, end to end, with real processes and sockets, and the account of what came out of it."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import typer
from rich.console import Console

from broker.ledger import LedgerError
from broker.line import Line, to_toml
from broker.plural import counted
from broker.report import report as ledger_report
from clients.sources import SYNTHETIC
from clients.synthetic import SyntheticCamera
from ops import facts, gallery, plan, summary, up
from ops.accounts import Tail, read_told
from ops.demo_line import Settings, check_classes, make_line, shipped_ng
from ops.fleet import Fleet, signals
from ops.report import Report, reconcile
from ops.screen import Screen
from ops.supervisor import Restart, Spec, Stage
from ops.truth import compare

#: Seconds in which the models must be loaded and registered.
LONGEST_START: Final = 120.0
#: Restarts of a process before the line is ready, after which the demo gives up.
MOST_FAILED_STARTS: Final = 3
#: Seconds without a new result, once the cameras have ended, after which no more is expected.
LONGEST_SILENCE: Final = 5.0


def run(settings: Settings) -> int:
    """Run the demo and print its account. Returns the exit code. Raises DemoError for what cannot work at all."""
    complaints = Console(stderr=True, highlight=False, soft_wrap=True)

    def complain(text: str) -> int:
        complaints.print(text, style="bold red", markup=False)
        return 1

    with _folder(settings.keep, complaints) as folder:
        line = make_line(settings, folder)
        path = folder / "line.toml"
        path.write_text(to_toml(line), encoding="utf-8")
        found = facts.of_line(line, folder)
        if refused := [told.refused for told in found.values() if told.refused]:
            return complain("\n".join(refused))
        check_classes(line, found)
        try:
            pictures = gallery.claim(settings.save, datetime.now())
        except OSError as error:
            return complain(f"{settings.save}: pictures cannot be written there: {error.strerror}; say --save DIR")
        try:
            demo = Demo(settings, line, path, pictures)
            if problem := demo.run():
                return complain(problem)
            account = demo.account()
        except LedgerError as error:
            return complain(str(error))
        finally:
            saved = gallery.count(pictures)
            gallery.leave(pictures)
    untrained = [name for name, told in found.items() if told.random]
    Console().print(summary.draw(account, line, pictures, saved, untrained), soft_wrap=True)
    problems = [_reported(account, settings.report)] if settings.report is not None else []
    if account.joined and not saved:
        problems.append(f"no annotated picture was written to {pictures}: the reason is in the log above")
    for problem in filter(None, problems):
        complain(problem)
    return 0 if account.passed and not any(problems) else 1


def _reported(account: Report, path: Path) -> str:
    """Write the report and say where it is. Returns what went wrong, or ""."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(account), indent=2) + b"\n")
    except OSError as error:
        return f"--report {path}: cannot be written: {error.strerror}"
    typer.echo(f"report: {path}")
    return ""


@contextmanager
def _folder(keep: bool, console: Console) -> Iterator[Path]:
    """A temporary folder for line file, ledger and pictures; gone afterwards unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="gongwei-demo-"))
    try:
        yield folder
    finally:
        if keep:
            console.print(f"kept: {folder}", markup=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # on Windows, a virus scanner may still look at a file


class Demo:
    """One run: wait for the models, let the cameras publish, wait for their results, end in order."""

    def __init__(self, settings: Settings, line: Line, path: Path, pictures: Path) -> None:
        self._line = line
        self._folder = path.parent
        self._seeds = {name: number for number, name in enumerate(line.cameras)}
        self._tail = Tail(self._folder / "received.jsonl")
        specs = [*plan.services(line, path), *plan.workers(line, path), *self._cameras(settings, path)]
        specs.append(plan.consumer(path, self._tail.path, pictures.resolve()))
        names = [spec.name for spec in specs]
        self._screen = Screen(Console(stderr=True), names, lambda: up.read(self._fleet), quiet=not settings.verbose)
        # At Ctrl-C the cameras end first; the rest ends once their last results are here.
        self._fleet = Fleet(specs, self._screen, held=[Stage.CAMERA], first=[Stage.CAMERA])
        self._released = False
        self._problem = ""
        self._finished = False
        self._began = self._heard_at = 0.0

    def run(self) -> str:
        """Run to the end. Returns what went wrong, or ""."""
        self._began = time.monotonic()
        self._screen.start()
        self._screen.say(f"{counted(len(self._line.cameras), 'camera')}, models: {', '.join(self._line.models)}")
        try:
            with signals(self._fleet.interrupt):
                self._fleet.run(self._turn)
        finally:
            self._screen.close()
        self._tail.read()
        return self._problem

    def account(self) -> Report:
        """What came out of it. Raises LedgerError when the ledger cannot be read."""
        return reconcile(
            {name: read_told(self._report_of(name)) for name in self._line.cameras},
            ledger_report(self._folder / self._line.ledger.path),
            self._tail.consumed,
            restarts=self._fleet.supervisor.restarts,
            truth=compare(self._tail.consumed.verdicts, self._known()),
        )

    def _known(self) -> dict[str, Callable[[int], bool]]:
        """Of each synthetic camera, whether its part of a number has a defect; where the models look for defects."""
        if not shipped_ng(self._line.models):
            return {}
        return {
            name: SyntheticCamera(self._seeds[name]).has_defect
            for name, camera in self._line.cameras.items()
            if camera.source.startswith(SYNTHETIC)
        }

    def _cameras(self, settings: Settings, path: Path) -> list[Spec]:
        """The cameras, which run once and report; files start over at their end, and no two see the same parts."""

        def options(name: str) -> list[str]:
            words = ["--loop", "--seed", str(self._seeds[name]), "--report", str(self._report_of(name))]
            return [*words, "--frames", str(settings.frames)] if settings.frames else words

        specs = plan.cameras(self._line, path, options)
        return [dataclasses.replace(spec, restart=Restart.NEVER) for spec in specs]

    def _report_of(self, camera: str) -> Path:
        return self._folder / f"{camera}.json"

    # --- between two turns of supervision ----------------------------------------------------------------------------

    def _turn(self) -> None:
        if self._tail.read():
            self._heard_at = time.monotonic()
        if self._problem or self._finished:
            return
        if not self._released and not self._fleet.interrupted:
            self._start()
        elif self._fleet.supervisor.over(Stage.CAMERA):
            self._finish()

    def _start(self) -> None:
        """Let the cameras begin when the models are there, or give up."""
        waited = time.monotonic() - self._began
        children = self._fleet.supervisor.children.values()
        failing = [child.spec.name for child in children if child.over or child.restarts >= MOST_FAILED_STARTS]
        if up.is_ready(self._screen.seen[0], plan.sessions(self._line)):
            self._screen.say(f"the line is ready after {waited:.1f} s: the cameras begin (Ctrl-C ends them)")
            self._released = True
            self._fleet.supervisor.release()
        elif failing or waited > LONGEST_START:
            what = (
                f"{', '.join(failing)} ended again and again" if failing else f"no answer within {LONGEST_START:.0f} s"
            )
            self._problem = f"the line does not start: {what}; the reason is in the log above"
            self._fleet.supervisor.stop()

    def _finish(self) -> None:
        """The cameras have ended: end the rest once all that they know as settled has been received."""
        now = time.monotonic()
        self._heard_at = self._heard_at or now
        told = [read_told(self._report_of(name)) for name in self._line.cameras]
        expected = sum(account.complete + account.incomplete for account in told if account is not None)
        if len(self._tail.consumed.frames) >= expected or now - self._heard_at > LONGEST_SILENCE:
            self._finished = True
            self._fleet.supervisor.stop()
