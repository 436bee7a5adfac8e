"""What hostile peers cost a line that runs: `python -m tests.fuzz.hostile`. Real processes, real sockets, measured.

Each attack stands between two undisturbed stretches: its throughput is a share of their mean. A hostile peer is on
another machine: here its process runs with the lowest priority, so that what it computes is not taken from the line.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

import workers  # noqa: F401  before any cv2: it sets the limit of pixels that cv2 decodes  # isort: split
from clients.camera import Camera
from tests.fuzz.attacks import ATTACKS
from tests.fuzz.corpus import ROOT
from tests.processes import Processes

CAMERAS = ("cam1", "cam2")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Stretch(NamedTuple):
    """`rate`: frames that settled in a second; `memory`: the broker's most bytes meanwhile."""

    rate: float
    memory: int


class Row(NamedTuple):
    attack: str
    did: str
    before: Stretch
    under: Stretch
    after: Stretch

    @property
    def share(self) -> float:
        return 2 * self.under.rate / (self.before.rate + self.after.rate)


class Feeder(threading.Thread):
    """One camera: as fast as it gets credit, or `rate` frames in a second."""

    def __init__(self, camera: Camera, rate: float) -> None:
        super().__init__()
        self.settled = 0
        self._camera = camera
        self._pause = 1 / rate if rate else 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        picture = np.full((64, 64, 3), 90, np.uint8)
        due = time.monotonic()
        while not self._ended.is_set():
            self._camera.send(picture, timeout=30.0)
            due += self._pause
            self._ended.wait(max(0.0, due - time.monotonic()) if self._pause else 0.0)

    def stop(self) -> None:
        self._ended.set()
        self.join(40)


class Siege:
    """A line with its cameras; `stretch` measures, `attack` does so under an attack."""

    def __init__(self, line: Processes, feeders: list[Feeder], seconds: float) -> None:
        self._line = line
        self._feeders = feeders
        self._seconds = seconds
        self._broker = psutil.Process(line.running["broker"].pid)

    def stretch(self) -> Stretch:
        began, first, memory = time.monotonic(), self._settled(), 0
        while (passed := time.monotonic() - began) < self._seconds:
            memory = max(memory, self._broker.memory_info().rss)
            time.sleep(0.05)
        return Stretch((self._settled() - first) / passed, memory)

    def attack(self, name: str) -> Row:
        before = self.stretch()
        ends = self._line.line.endpoints
        words = [sys.executable, "-m", "tests.fuzz.attacks", name, ends.frontend, ends.backend, str(self._seconds + 1)]
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as hostile:
            _make_unimportant(hostile.pid)
            time.sleep(0.7)
            under = self.stretch()
            did = hostile.communicate(timeout=60)[0].strip()
        time.sleep(2.5)  # connections that wait for a greeting are cut after 2 s
        return Row(name, did, before, under, self.stretch())

    def _settled(self) -> int:
        return sum(feeder.settled for feeder in self._feeders)


def _make_unimportant(pid: int) -> None:
    idle = getattr(psutil, "IDLE_PRIORITY_CLASS", 19)
    psutil.Process(pid).nice(idle)


def run(names: list[str], seconds: float, rate: float) -> list[Row]:
    """Besiege a fresh line with each of the attacks, one after another."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        line = stack.enter_context(Processes(Path(folder), {"fake": "fake:delay=0.001,batch=4"}, list(CAMERAS)))
        line.start_line(workers=2)
        feeders = []
        for name in CAMERAS:
            feeder: list[Feeder] = []

            def settled(*_: Any, feeder: list[Feeder] = feeder) -> None:
                feeder[0].settled += 1

            end = line.line.endpoints.frontend
            camera = stack.enter_context(Camera(name, endpoint=end, deadline=60.0, on_settled=settled))
            feeder.append(Feeder(camera, rate / len(CAMERAS)))
            feeder[0].start()
            stack.callback(feeder[0].stop)
            feeders += feeder
        siege = Siege(line, feeders, seconds)
        line.wait("the first frames", lambda: all(feeder.settled > 50 for feeder in feeders))
        siege.stretch()  # what waited for the workers is made up for
        return [siege.attack(name) for name in names]


def table(rows: list[Row]) -> Table:
    shown = Table("attack", "it did", "frames/s before", "under", "after", "share", "broker MB before", "most", "after")
    for row in rows:
        shown.add_row(
            row.attack,
            row.did,
            *(f"{stretch.rate:.0f}" for stretch in row[2:]),
            f"{row.share:.2f}",
            *(f"{stretch.memory / 2**20:.0f}" for stretch in row[2:]),
        )
    return shown


@app.command(help=__doc__)
def main(
    attack: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(ATTACKS)}; repeat. Default: all.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of each stretch.")] = 6.0,
    rate: Annotated[float, typer.Option(min=0, help="Frames in a second; 0: as fast as credit comes.")] = 0.0,
) -> None:
    """Exit code 0, whatever the shares are: they are for people to read."""
    unknown = set(attack or []) - ATTACKS.keys()
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}; known: {', '.join(ATTACKS)}", param_hint="--attack")
    Console(width=150).print(table(run(attack or list(ATTACKS), seconds, rate)))


if __name__ == "__main__":
    app()
