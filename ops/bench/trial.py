"""One trial: start the processes, let them reach a steady state, count over a window of time, end them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final, Literal

import numpy as np
from msgspec import Struct, field

from broker.payload import SIDE_LIMIT
from ops.bench.board import Board, Slot
from ops.bench.camera import Cameras
from ops.bench.child import command
from ops.bench.crew import BenchError, Crew, Usage, open_crew, wait_until
from ops.bench.rig import credentials, free_ports, make_line, secured, start_line
from ops.bench.session import LeanWorker
from ops.bench.stream import Proxy, Puller, Sender

#: "tight" is `zmq.proxy` with the least queues that keep it busy; "proxy" has queues as deep as the broker's.
#: "curve" is the broker of a line with [security].
Subject = Literal["raw", "proxy", "tight", "broker", "curve"]
#: What a whole line is run for.
LINES: Final = ("broker", "curve")

_MOST_UNSETTLED = 256
_TIGHT = 4
_DEADLINE = 5.0


class Settings(Struct, frozen=True, kw_only=True):
    """What all trials of a run have in common. Times in seconds; `window_bytes`: unsettled payloads of one camera;
    `patience`: how long the first message may take.
    """

    seconds: float = 2.0
    warm_up: float = 1.0
    cameras: int = 2
    io_threads: int = 1
    window_bytes: int = 64_000_000
    patience: float = 20.0
    folder: str | None = None

    def window(self, size: int) -> int:
        """Unsettled frames of one camera."""
        return max(4, min(_MOST_UNSETTLED, self.window_bytes // size))

    def hwm(self, trial: Trial) -> int:
        """The high-water mark of every socket of a baseline."""
        return _TIGHT if trial.subject == "tight" else self.window(trial.size)


class Trial(Struct, frozen=True, kw_only=True):
    """What is measured: `rate` 0 is as fast as it goes; else so many messages a second, and their latency."""

    subject: Subject
    transport: str
    size: int
    models: int = 1
    rate: float = 0.0


class Latency(Struct, frozen=True, kw_only=True):
    """One-way, from the moment before the send to the receipt at a worker; seconds."""

    p50: float
    p99: float
    samples: int


class Measurement(Struct, frozen=True, kw_only=True):
    """What a trial gave. `bytes_per_s`: payload bytes into and out of the subject (raw: carried once).

    `cpu`, `rss`: by process, processor seconds used in the window, and resident bytes at its end.
    """

    trial: Trial
    seconds: float
    messages_per_s: float
    tasks_per_s: float
    bytes_per_s: float
    cpu: dict[str, float]
    rss: dict[str, int]
    latency: Latency | None = None
    troubles: dict[str, int] = field(default_factory=dict)

    def cpu_per_task(self, process: str) -> float:
        """Processor seconds of `process` for one task; nan where nothing was done."""
        tasks = self.tasks_per_s * self.seconds
        return self.cpu.get(process, float("nan")) / tasks if tasks else float("nan")


def run_trial(trial: Trial, settings: Settings, profile: Path | None = None) -> Measurement:
    """Run one trial in a fresh folder; raises BenchError when a process fails or nothing flows."""
    with tempfile.TemporaryDirectory(prefix="gw", dir=settings.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Board.create(folder / "board") as board, open_crew(folder) as crew:
            _START[trial.subject](trial, settings, folder, board, crew, profile)
            # A settled frame has passed every process of the line: the join, too, is up.
            flows = Slot.COMPLETE if trial.subject in LINES else Slot.RECEIVED
            wait_until(lambda: board.counts[flows], crew, settings.patience, f"message at the end of {trial}")
            time.sleep(settings.warm_up)
            measurement = _measure(trial, settings.seconds, board, crew)
            board.stop()
            return measurement


class _Snapshot:
    """Counters and usage at one moment."""

    def __init__(self, trial: Trial, board: Board, crew: Crew) -> None:
        self.usage: dict[str, Usage] = crew.sample()
        self.sampled = board.counts[Slot.SAMPLED]
        self.received = board.received(trial.models)
        self.at = time.monotonic()


def _measure(trial: Trial, seconds: float, board: Board, crew: Crew) -> Measurement:
    before = _Snapshot(trial, board, crew)
    time.sleep(seconds)
    after = _Snapshot(trial, board, crew)
    elapsed = after.at - before.at
    tasks = (after.received - before.received) / elapsed
    hops = {"raw": 1, "proxy": 2, "tight": 2, "broker": 1 + trial.models, "curve": 1 + trial.models}[trial.subject]
    troubles = {slot.name.lower(): board.counts[slot] for slot in _TROUBLES if board.counts[slot]}
    return Measurement(
        trial=trial,
        seconds=elapsed,
        messages_per_s=tasks / trial.models,
        tasks_per_s=tasks,
        bytes_per_s=hops * trial.size * tasks / trial.models,
        cpu={name: after.usage[name].cpu - before.usage[name].cpu for name in after.usage},
        rss={name: usage.rss for name, usage in after.usage.items()},
        latency=_latency(board, before.sampled) if trial.rate else None,
        troubles=troubles,
    )


_TROUBLES = (Slot.INCOMPLETE, Slot.REJECTED, Slot.REPEATED, Slot.VOIDED)


def _latency(board: Board, since: int) -> Latency | None:
    latencies = board.latencies_since(since)
    if not latencies:
        return None
    p50, p99 = np.percentile(latencies, [50, 99])
    return Latency(p50=float(p50), p99=float(p99), samples=len(latencies))


def _start_raw(trial: Trial, settings: Settings, folder: Path, board: Board, crew: Crew, profile: Path | None) -> None:
    (endpoint,) = _addresses(folder, trial.transport, 1)
    crew.start("consumer", command(board, _puller(trial, settings, endpoint, bind=True)), heeds_board=True)
    crew.start("load", command(board, _sender(trial, settings, endpoint)), heeds_board=True)


def _start_proxy(
    trial: Trial, settings: Settings, folder: Path, board: Board, crew: Crew, profile: Path | None
) -> None:
    front, back = _addresses(folder, trial.transport, 2)
    hwm = settings.hwm(trial)
    crew.start("proxy", command(board, Proxy(frontend=front, backend=back, hwm=hwm, io_threads=settings.io_threads)))
    crew.start("consumer", command(board, _puller(trial, settings, back, bind=False)), heeds_board=True)
    crew.start("load", command(board, _sender(trial, settings, front)), heeds_board=True)


def _start_broker(
    trial: Trial, settings: Settings, folder: Path, board: Board, crew: Crew, profile: Path | None
) -> None:
    window = settings.window(trial.size)
    cameras = [f"camera-{number}" for number in range(1 if trial.rate else settings.cameras)]
    models = [f"model-{number}" for number in range(trial.models)]
    line = make_line(folder, trial.transport, cameras=cameras, models=models, window=window, deadline=_DEADLINE)
    if trial.subject == "curve":
        line = secured(folder, line)
    start_line(crew, folder, line, profile=profile)
    worker = LeanWorker(
        backend=line.endpoints.backend,
        models=models,
        window=min(window, 64),
        max_batch=min(window, 64) // 2,
        hwm=window,
        io_threads=settings.io_threads,
        size=trial.size,
        timed=bool(trial.rate),
        credentials=credentials(folder, line, "worker"),
    )
    load = Cameras(
        frontend=line.endpoints.frontend,
        names=cameras,
        window=window,
        size=trial.size,
        shape=rectangle(trial.size),
        budget=_DEADLINE,
        rate=trial.rate,
        io_threads=settings.io_threads,
        credentials=credentials(folder, line, "camera"),
    )
    crew.start("consumer", command(board, worker), heeds_board=True)
    crew.start("load", command(board, load), heeds_board=True)


def rectangle(size: int) -> list[int]:
    """[height, width] of a grey picture of `size` bytes; raises BenchError where the broker would refuse all."""
    for height in range(1, SIDE_LIMIT + 1):
        if size % height == 0 and size // height <= SIDE_LIMIT:
            return [height, size // height]
    raise BenchError(f"no picture has {size} pixels and sides of at most {SIDE_LIMIT}: choose a rounder size")


_START = {
    "raw": _start_raw,
    "proxy": _start_proxy,
    "tight": _start_proxy,
    "broker": _start_broker,
    "curve": _start_broker,
}


def _puller(trial: Trial, settings: Settings, endpoint: str, *, bind: bool) -> Puller:
    return Puller(
        endpoint=endpoint,
        bind=bind,
        size=trial.size,
        hwm=settings.hwm(trial),
        io_threads=settings.io_threads,
        timed=bool(trial.rate),
    )


def _sender(trial: Trial, settings: Settings, endpoint: str) -> Sender:
    return Sender(
        endpoint=endpoint,
        size=trial.size,
        sockets=1 if trial.rate else settings.cameras,
        hwm=settings.hwm(trial),
        io_threads=settings.io_threads,
        rate=trial.rate,
    )


def _addresses(folder: Path, transport: str, count: int) -> list[str]:
    if transport == "ipc":
        return [f"ipc://{folder / str(number)}" for number in range(count)]
    base = free_ports(count)
    return [f"tcp://127.0.0.1:{base + number}" for number in range(count)]
