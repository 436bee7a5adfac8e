"""`gongwei bench soak`: a whole line under a steady load; memory and open files of every process, second by second."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct, field

from broker import report as ledger_report
from ops.bench.board import Board, Slot
from ops.bench.camera import Cameras
from ops.bench.child import command
from ops.bench.crew import Crew, Usage, open_crew, wait_until
from ops.bench.rig import LEDGER, make_line, start_line
from ops.bench.session import LeanWorker

_START_SECONDS = 20.0
_DEADLINE = 5.0
#: A session that was lost is none of them: on a machine that others starve that happens, and its frames go to the next.
_TROUBLES = (Slot.INCOMPLETE, Slot.REJECTED, Slot.REPEATED)


class Soak(Struct, frozen=True, kw_only=True):
    """A line with `cameras` cameras at `rate` frames/s each, every frame to all of `models`, for `seconds`."""

    seconds: float
    rate: float
    cameras: int
    side: int
    models: int
    transport: str
    every: float = 1.0
    folder: str | None = None

    @property
    def size(self) -> int:
        """Bytes of a frame: square, grey."""
        return self.side * self.side


class Series(Struct, frozen=True, kw_only=True):
    """One process over time: resident bytes, open files (Windows: handles), processor seconds since its start."""

    rss: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class Record(Struct, frozen=True, kw_only=True):
    """What was seen. `times`: seconds since the first sample; `in_flight`: bytes of frames that were not settled."""

    soak: Soak
    times: list[float] = field(default_factory=list)
    processes: dict[str, Series] = field(default_factory=dict)
    in_flight: list[int] = field(default_factory=list)

    def add(self, now: float, usage: dict[str, Usage], in_flight: int) -> None:
        """Take one sample of everything."""
        self.times.append(now)
        self.in_flight.append(in_flight)
        for name, used in usage.items():
            series = self.processes.setdefault(name, Series())
            series.rss.append(used.rss)
            series.files.append(used.files)
            series.cpu.append(used.cpu)

    def growth(self, values: list[int]) -> float:
        """Growth of `values` a minute, by least squares over the second half: the first half is filling caches."""
        return slope(self.times, values) * 60

    def broker_without_payloads(self) -> list[int]:
        """Resident bytes of the broker less the payloads that it may hold."""
        return [rss - held for rss, held in zip(self.processes["broker"].rss, self.in_flight, strict=True)]


def slope(times: list[float], values: Sequence[float]) -> float:
    """Slope of the least-squares line through the second half of the samples; nan for fewer than two of them."""
    half = len(times) // 2
    x, y = np.array(times[half:]), np.array(values[half:], dtype=np.float64)
    if len(x) < 2:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x @ x))


def run_soak(soak: Soak, on_sample: Callable[[Record], None]) -> tuple[Record, list[str]]:
    """Run the line; returns the samples and what does not reconcile at the end (nothing, if all is well).

    Raises BenchError when a process of the line ends.
    """
    with tempfile.TemporaryDirectory(prefix="gw", dir=soak.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Board.create(folder / "board") as board, open_crew(folder) as crew:
            _start(soak, folder, board, crew)
            wait_until(lambda: board.counts[Slot.COMPLETE], crew, _START_SECONDS, "settled frame")
            record = _watch(soak, board, crew, on_sample)
            board.stop_sources()
            crew.wait(["cameras"], 2 * _DEADLINE)
            problems = _reconcile(soak, folder / LEDGER, board)
            board.stop()
            return record, problems


def _start(soak: Soak, folder: Path, board: Board, crew: Crew) -> None:
    cameras = [f"camera-{number}" for number in range(soak.cameras)]
    models = [f"model-{number}" for number in range(soak.models)]
    window = 64
    line = make_line(
        folder, soak.transport, cameras=cameras, models=models, window=window, deadline=_DEADLINE, rate=soak.rate
    )
    start_line(crew, folder, line, recorder=True)
    worker = LeanWorker(
        backend=line.endpoints.backend, models=models, window=8, max_batch=4, hwm=8, io_threads=1, size=soak.size
    )
    load = Cameras(
        frontend=line.endpoints.frontend,
        names=cameras,
        window=window,
        size=soak.size,
        shape=[soak.side, soak.side],
        budget=_DEADLINE,
        rate=soak.rate,
        io_threads=1,
    )
    crew.start("worker", command(board, worker), heeds_board=True)
    crew.start("cameras", command(board, load), heeds_board=True)


def _watch(soak: Soak, board: Board, crew: Crew, on_sample: Callable[[Record], None]) -> Record:
    record = Record(soak=soak)
    begin = time.monotonic()
    while (now := time.monotonic() - begin) < soak.seconds:
        record.add(now, crew.sample(), unsettled(board) * soak.size)
        on_sample(record)
        time.sleep(max(0.0, begin + len(record.times) * soak.every - time.monotonic()))
    return record


def unsettled(board: Board) -> int:
    """Frames sent and not settled."""
    counts = board.counts
    return int(counts[Slot.SENT] - counts[Slot.COMPLETE] - counts[Slot.INCOMPLETE] - counts[Slot.REJECTED])


def _reconcile(soak: Soak, ledger: Path, board: Board) -> list[str]:
    """What differs between the cameras' counts, what they were told, and the ledger."""
    sent = board.counts[Slot.SENT]
    problems = [f"{board.counts[slot]} {slot.name.lower()}" for slot in _TROUBLES if board.counts[slot]]
    if left := unsettled(board):
        problems.append(f"{left} of {sent} frames were never settled")
    told = ledger_report.report(ledger)
    answers = sum(statuses.get("ok", 0) for statuses in told["statuses"].values())
    found = {name: told[name] for name in ("accepted", "complete", "published", "open", "duplicates", "unpublished")}
    wanted = {"accepted": sent, "complete": sent, "published": sent, "answers ok": sent * soak.models}
    for name, number in (found | {"answers ok": answers}).items():
        if number != wanted.get(name, 0):
            problems.append(f"the ledger says {name}: {number}, and not {wanted.get(name, 0)}")
    return problems
