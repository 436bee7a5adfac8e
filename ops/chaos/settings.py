"""What a chaos run is asked to do, and the line that it does it to."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from broker.line import Endpoints, Line
from ops.bench.rig import make_line
from ops.chaos import camera, consumer
from ops.chaos.pictures import MODELS, side
from ops.chaos.schedule import Fault, Kind, Victims, alone, counts, mixed

CONSUMER = "consumer"


class ChaosError(Exception):
    """A run that cannot be begun or judged; the text says why."""


class Settings(Struct, frozen=True, kw_only=True):
    """`kinds`: how often each strikes, None: as its rate says. `each`: instead, this kind alone, `times` times.

    `lasts`: seconds of each fault of a kind that is struck by itself, None: as its kind does.

    `rate` frames/s of each camera of about `size` bytes; `workers` processes of each model, whose calls take `delay`
    seconds; `deadline` seconds of every frame; `window` unsettled frames of a camera.
    `retain`: seconds that the ledger keeps a frame, 0: for ever.
    """

    seed: int = 1
    seconds: float = 60.0
    kinds: Mapping[Kind, int | None] = {}
    each: Kind | None = None
    times: int = 0
    lasts: float | None = None
    cameras: int = 2
    workers: int = 3
    rate: float = 25.0
    size: int = 30_000
    delay: float = 0.005
    deadline: float = 30.0
    window: int = 64
    retain: float = 0.0

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(f"cam{number + 1}" for number in range(self.cameras))

    @property
    def worker_names(self) -> tuple[str, ...]:
        return tuple(f"{model}-{number}" for model in MODELS for number in range(self.workers))

    def wanted(self, skipped: Mapping[Kind, str]) -> dict[Kind, int]:
        """How often each kind is to strike, without those that this machine cannot do."""
        asked = {self.each: self.times} if self.each is not None else counts(self.kinds, self.seconds)
        return {kind: count for kind, count in asked.items() if kind not in skipped}

    def schedule(self, skipped: Mapping[Kind, str]) -> list[Fault]:
        """The faults of the run: a function of these settings and of what is skipped, and of nothing else."""
        victims = Victims(cameras=self.camera_names, workers=self.worker_names)
        wanted = self.wanted(skipped)
        if self.each is not None:
            return alone(self.seed, self.each, wanted.get(self.each, 0), victims, self.lasts)
        return mixed(self.seed, self.seconds, wanted, victims)


def model_of(worker: str) -> str:
    """The model of a worker process."""
    return worker.rpartition("-")[0]


def is_far(settings: Settings, name: str) -> bool:
    """Whether a process runs on the far host, where there is one: the last camera and the last worker of each model."""
    far = (settings.camera_names[-1], *(f"{model}-{settings.workers - 1}" for model in MODELS))
    return name in far


def make_chaos_line(settings: Settings, folder: Path, host: str, ledger: str) -> Line:
    """The line: every camera's frames go to both models; `ledger` is a path in `folder`."""
    line = make_line(
        folder,
        "tcp",
        cameras=list(settings.camera_names),
        models=list(MODELS),
        window=settings.window,
        deadline=settings.deadline,
        rate=settings.rate,
    )
    ends = msgspec.to_builtins(line.endpoints)
    moved = {name: end.replace("127.0.0.1", host) if isinstance(end, str) else end for name, end in ends.items()}
    return msgspec.structs.replace(
        line,
        name="chaos",
        endpoints=msgspec.convert(moved, Endpoints),
        ledger=msgspec.structs.replace(line.ledger, path=ledger, keep_days=settings.retain / 86400.0),
    )


def commands(settings: Settings, folder: Path, file: Path, line: Line) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name -> role and command line of every process, in the order of starting."""
    python = (sys.executable, "-m")
    insecure = "--insecure"  # in a network of the run's own the line stands beyond loopback
    ends = line.endpoints
    found: dict[str, tuple[str, tuple[str, ...]]] = {
        "join": ("join", (*python, "broker", "join", insecure, "--line", str(file))),
        "broker": ("broker", (*python, "broker", "start", insecure, "--line", str(file))),
    }
    for name in settings.worker_names:
        model = model_of(name)
        engine = f"delay={settings.delay:g},poison=exit,marker={MODELS[model]},orders={orders(folder, name)}"
        word = f"{model}=fake:{engine}"
        found[name] = ("worker", (*python, "workers", "start", "--line", str(file), "--model", word, "--name", name))
    spec = consumer.Spec(live=ends.live, catchup=ends.catchup, diary=str(diary(folder)))
    found[CONSUMER] = (CONSUMER, consumer.command(spec))
    for name in settings.camera_names:
        found[name] = ("camera", camera.command(_camera(settings, folder, name, ends.frontend)))
    return found


def orders(folder: Path, worker: str) -> Path:
    """The file by which one call of this worker's engine is made to hang."""
    return folder / f"{worker}.orders"


def diary(folder: Path) -> Path:
    """The consumer's diary."""
    return folder / "consumer.diary"


def _camera(settings: Settings, folder: Path, name: str, endpoint: str) -> camera.Spec:
    return camera.Spec(
        name=name,
        endpoint=endpoint,
        deadline=settings.deadline,
        window=settings.window,
        rate=settings.rate,
        pixels=side(settings.size),
        folder=str(folder),
    )
