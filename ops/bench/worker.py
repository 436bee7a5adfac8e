"""`gongwei bench worker`: a real worker, fed by a real line, beside a bare onnxruntime loop of the same model."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from broker.wire import Encoding
from clients.encoding import encode_image
from clients.synthetic import SyntheticCamera
from ops.bench.bare import BareLoop, example_input, open_session
from ops.bench.board import Board, Slot
from ops.bench.camera import Cameras
from ops.bench.child import command
from ops.bench.compare import Spread, spread
from ops.bench.crew import BenchError, Crew, open_crew, wait_until
from ops.bench.rig import make_line, start_line

#: What a worker is to reach of the bare loop's frames/s.
TARGET = 0.95
_START_SECONDS = 60.0
_MODEL = "model"
_CAMERA = "camera"
_PICTURES = 8
#: A slow model must not expire its frames: nothing is measured by that.
_DEADLINE = 60.0


class Workload(Struct, frozen=True, kw_only=True):
    """The model, and how it is run: by worker and bare loop alike. `frames` are counted in each trial.

    `options`: more for the command line of `workers start`.
    """

    model: str
    frames: int
    threads: int
    engine_threads: int
    max_batch: int
    options: list[str] = []
    transport: str = "tcp"
    folder: str | None = None


class Case(Struct, frozen=True, kw_only=True):
    """What the camera sends: pictures of `height` x `width`."""

    name: str
    encoding: Encoding
    height: int
    width: int


class Speed(Struct, frozen=True, kw_only=True):
    """frames/s of one trial, and processor seconds of each process for one frame."""

    frames_per_s: float
    cpu: dict[str, float]
    rss: dict[str, int]


class CaseResult(Struct, frozen=True, kw_only=True):
    """All pairs of one case, in their order."""

    case: Case
    bare: list[Speed]
    worker: list[Speed]

    @property
    def ratio(self) -> Spread | None:
        """Worker over bare loop, pair by pair."""
        pairs = zip(self.worker, self.bare, strict=True)
        return spread(worker.frames_per_s / bare.frames_per_s for worker, bare in pairs)


def make_cases(workload: Workload) -> list[Case]:
    """JPEG and raw BGR, at the size of the model's input and at 1080p; raises BenchError if the model cannot run."""
    try:
        shape = example_input(open_session(Path(workload.model), 1), workload.max_batch).shape
    # onnxruntime's exceptions have no common class below Exception.
    except Exception as error:
        raise BenchError(f"{workload.model}: {error}") from error
    encodings: tuple[Encoding, ...] = ("jpeg", "bgr8")
    return [
        Case(name=f"{encoding} {width}x{height}", encoding=encoding, height=height, width=width)
        for encoding in encodings
        for height, width in ((int(shape[2]), int(shape[3])), (1080, 1920))
    ]


def run_case(workload: Workload, case: Case, pairs: int, on_trial: Callable[[], None]) -> CaseResult:
    """Bare loop and worker in turn, `pairs` times; raises BenchError when one of them fails."""
    result = CaseResult(case=case, bare=[], worker=[])
    for _ in range(pairs):
        result.bare.append(_measure_bare(workload))
        on_trial()
        result.worker.append(_measure_worker(workload, case))
        on_trial()
    return result


@contextlib.contextmanager
def _trial(workload: Workload) -> Iterator[tuple[Path, Board, Crew]]:
    with tempfile.TemporaryDirectory(prefix="gw", dir=workload.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Board.create(folder / "board") as board, open_crew(folder) as crew:
            yield folder, board, crew
            board.stop()


def _speed(workload: Workload, count: Callable[[], int], crew: Crew) -> Speed:
    """Time `workload.frames` frames, from one answer to another, after a warm-up of a few calls of every session."""
    warm_up = 4 * workload.threads * workload.max_batch
    wait_until(lambda: count() >= warm_up, crew, _START_SECONDS, f"{warm_up} frames answered")
    began_with, began = _next_change(count, crew)
    before = crew.sample()
    done = began_with
    while done - began_with < workload.frames:
        done, ended = _next_change(count, crew)
    frames, after = done - began_with, crew.sample()
    return Speed(
        frames_per_s=frames / (ended - began),
        cpu={name: (after[name].cpu - before[name].cpu) / frames for name in after},
        rss={name: usage.rss for name, usage in after.items()},
    )


def _next_change(count: Callable[[], int], crew: Crew) -> tuple[int, float]:
    """The count after its next change, and when that was: answers come in batches, a clock between two would lie."""
    known = count()
    wait_until(lambda: count() != known, crew, _START_SECONDS, "more frames answered")
    return count(), time.monotonic()


def _measure_bare(workload: Workload) -> Speed:
    with _trial(workload) as (_, board, crew):
        loop = BareLoop(
            model=workload.model,
            threads=workload.threads,
            engine_threads=workload.engine_threads,
            batch=workload.max_batch,
        )
        crew.start("bare", command(board, loop), heeds_board=True)
        return _speed(workload, lambda: board.received(workload.threads), crew)


def _measure_worker(workload: Workload, case: Case) -> Speed:
    with _trial(workload) as (folder, board, crew):
        window = max(16, 4 * workload.threads * workload.max_batch)
        line = make_line(
            folder, workload.transport, cameras=[_CAMERA], models=[_MODEL], window=window, deadline=_DEADLINE
        )
        file = start_line(crew, folder, line)
        crew.start("worker", _worker_command(workload, file))
        pictures = write_pictures(case, folder)
        load = Cameras(
            frontend=line.endpoints.frontend,
            names=[_CAMERA],
            window=window,
            size=0,
            encoding=case.encoding,
            shape=[case.height, case.width, 3],
            files=[str(picture) for picture in pictures],
            budget=_DEADLINE,
            io_threads=1,
        )
        crew.start("cameras", command(board, load), heeds_board=True)
        speed = _speed(workload, lambda: board.counts[Slot.COMPLETE], crew)
        if board.counts[Slot.INCOMPLETE]:
            raise BenchError(f"{board.counts[Slot.INCOMPLETE]} frames incomplete\n{crew.log_tail('worker')}")
        return speed


def _worker_command(workload: Workload, line: Path) -> list[str]:
    options = {
        "--line": line,
        "--model": f"{_MODEL}={workload.model}",
        "--threads": workload.threads,
        "--engine-threads": workload.engine_threads,
        "--max-batch": workload.max_batch,
    }
    arguments = [text for option, value in options.items() for text in (option, str(value))]
    return [sys.executable, "-m", "workers", "start", *arguments, *workload.options]


def write_pictures(case: Case, folder: Path) -> list[Path]:
    """Payload files of a few different parts, as the camera sends them."""
    camera = SyntheticCamera(size=(case.height, case.width))
    files = [folder / f"picture-{number}" for number in range(_PICTURES)]
    for number, file in enumerate(files):
        file.write_bytes(encode_image(camera.part(number).image, case.encoding).payload)
    return files
