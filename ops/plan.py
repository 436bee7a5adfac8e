"""Which processes a line consists of: the commands, names and ports that `gongwei up` runs. Pure."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from broker.line import CameraEntry, Line, Model
from ops.supervisor import Restart, Spec, Stage
from workers.lookup import is_name
from workers.store import default_store

#: Log lines as JSON, so that the supervisor can read them; UTF-8 also where Windows would choose a code page.
ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {"GONGWEI_LOG": "json", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
)
#: What a camera may need beyond its deadline to see its last frames settled, in seconds.
FLUSH: Final = 5.0
#: Offsets of the metrics ports from the line's first one.
_BROKER, _JOIN, _RECORDER, _WORKERS = range(4)


def specs(line: Line, path: Path, *, insecure: bool = False) -> list[Spec]:
    """Every process of the line file at `path` that runs on this machine: models with a file, cameras with a source.
    `insecure`: other machines may connect although nobody is asked for a key."""
    return [*services(line, path, insecure=insecure), *workers(line, path), *cameras(line, path)]


def services(line: Line, path: Path, *, insecure: bool = False) -> list[Spec]:
    """Join, broker and recorder."""
    options = ("--insecure",) if insecure else ()
    return [
        _spec("join", Stage.JOIN, ("broker", "join"), path, *options, metrics=_port(line, _JOIN)),
        _spec("broker", Stage.BROKER, ("broker", "start"), path, *options, metrics=_port(line, _BROKER)),
        _spec("recorder", Stage.RECORDER, ("broker", "recorder"), path, *options, metrics=_port(line, _RECORDER)),
    ]


def workers(line: Line, path: Path) -> list[Spec]:
    """The worker processes of every model that has a file; their metrics ports are numbered through the models."""
    planned = []
    number = _WORKERS
    for name, model in line.models.items():
        for index in range(1, model.workers + 1):
            if model.file:
                planned.append(_worker(name, index, model, path, _port(line, number)))
            number += 1
    return planned


def cameras(line: Line, path: Path, options: Callable[[str], Iterable[str]] = lambda name: ()) -> list[Spec]:
    """The cameras that have a source here; each is over when its source is. `options`: more of them, by name."""
    return [
        _spec(
            f"camera/{name}", Stage.CAMERA, ("clients", "camera"), path, "--name", name, *options(name),
            restart=Restart.FAILURE, grace=flush(camera),
        )
        for name, camera in line.cameras.items()
        if camera.source
    ]  # fmt: skip


def consumer(path: Path, received: Path, pictures: Path) -> Spec:
    """A consumer that writes each message as a line of JSON to `received`, and annotated pictures into `pictures`."""
    words = ("--since", "0", "--json", "--save", str(pictures))
    spec = _spec("consumer", Stage.CONSUMER, ("clients", "watch"), path, *words)
    # Started again, it would receive, and write down, everything once more.
    return dataclasses.replace(spec, output=received, restart=Restart.NEVER)


def flush(camera: CameraEntry) -> float:
    """Seconds in which the camera's last frames have settled."""
    return camera.deadline + FLUSH


def sessions(line: Line) -> dict[str, int]:
    """How many sessions of each model `specs` makes: the line is ready when the broker has them all."""
    return {name: model.workers * model.threads for name, model in line.models.items() if model.file}


def stand_in(name: str, model: Model, path: Path) -> Spec:
    """One worker more of `model`, for the time in which the others are started again; it has no metrics port."""
    options = _options(name, stand_in_name(name), model)
    return _spec(f"worker/{stand_in_name(name)}", Stage.WORKER, ("workers", "start"), path, *options)


def stand_in_name(model: str) -> str:
    """What the stand-in of a model is called at the broker; two at once would be refused there."""
    return f"{model}-stand-in"


def _worker(name: str, index: int, model: Model, path: Path, metrics: int) -> Spec:
    options = _options(name, f"{name}-{index}", model)
    if metrics:
        options += ["--metrics-port", str(metrics)]
    return _spec(f"worker/{name}-{index}", Stage.WORKER, ("workers", "start"), path, *options, metrics=metrics)


def _options(name: str, worker: str, model: Model) -> list[str]:
    # By name a model is found in the folder of who made the plan, whoever runs it.
    store = ["--store", str(default_store().absolute())] if is_name(model.file) else []
    return [
        "--model", name,
        *store,
        "--name", worker,
        "--threads", str(model.threads),
        "--max-batch", str(model.max_batch),
        "--max-delay", f"{model.max_delay * 1e3:g}",
    ]  # fmt: skip


def _spec(
    name: str,
    stage: Stage,
    command: tuple[str, str],
    path: Path,
    *options: str,
    metrics: int = 0,
    restart: Restart = Restart.ALWAYS,
    grace: float = 10.0,
) -> Spec:
    package, subcommand = command
    argv = (sys.executable, "-m", package, subcommand, "--line", str(path), *options)
    return Spec(name=name, stage=stage, argv=argv, metrics=metrics, restart=restart, grace=grace, env=ENVIRONMENT)


def _port(line: Line, offset: int) -> int:
    return line.endpoints.metrics + offset if line.endpoints.metrics else 0
