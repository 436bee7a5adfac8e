"""The line that `gongwei demo` runs: made from a few words of the command line, on free ports of this machine."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker import classes
from broker.line import CameraEntry, Endpoints, Line, LineError, Model, Recorder, Route, Rules, Station, parse, to_toml
from ops import facts
from ops.facts import Facts
from workers import shipped
from workers.errors import ModelError
from workers.lookup import find, name_of, split
from workers.store import default_store

#: The built-in model, and the class whose sight makes a frame NG where no other rule is given.
TINY: Final = "tiny"
TINY_NG: Final = "white"
NO_MODEL: Final = """\
a model is needed: gongwei demo --model FILE.onnx
FILE.onnx is a YOLOv5 (detection, segmentation or classification) exported to
ONNX, for instance, in a checkout of github.com/ultralytics/yolov5, by
  python export.py --weights yolov5n.pt --include onnx
Without one at hand, gongwei demo --model tiny uses a detector of bright spots
that is built in."""
_ENDPOINTS: Final = ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control")
#: Ports that are looked through: below those that systems hand out by themselves.
_PORTS: Final = range(21000, 31000)
#: Ports for sessions: those of workers that were started again come beside those that the broker still waits for.
_SESSIONS: Final = 32


class DemoError(Exception):
    """The demo cannot run as it was asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was asked for. `frames` of each camera, 0 until Ctrl-C; `rate` in frames/s, 0 as fast as credit allows."""

    models: list[str]
    sources: list[str]
    frames: int = 100
    rate: float = 0.0
    deadline: float = 5.0
    ng: list[str] = field(default_factory=list)
    save: Path = Path("demo-output")
    report: Path | None = None
    keep: bool = False
    verbose: bool = False


def make_line(settings: Settings, folder: Path) -> Line:
    """The line of a demo, checked as any line file is. Writes the built-in model into `folder` if it is asked for."""
    models = _models(settings.models, folder)
    ng = settings.ng or ([TINY_NG] if list(models) == [TINY] else shipped_ng(models))
    sources = {f"cam{number}": _source(spec) for number, spec in enumerate(settings.sources, start=1)}
    line = Line(
        name="demo",
        stations={f"{name}-station": Station(rules=Rules(ng=ng) if ng else None) for name in sources},
        cameras={
            name: CameraEntry(station=f"{name}-station", source=source, rate=settings.rate, deadline=settings.deadline)
            for name, source in sources.items()
        },
        models=models,
        routes={name: Route(models=list(models)) for name in sources},
        endpoints=endpoints(free_ports(len(_ENDPOINTS) + 3 + len(models) + _SESSIONS)),
        recorder=Recorder(disk=512),
    )
    try:
        return parse(to_toml(line), "demo")
    except LineError as error:
        raise DemoError(str(error)) from None


def check_classes(line: Line, found: Mapping[str, Facts]) -> None:
    """Raises DemoError for a class that no given model knows: it would never be seen, and no frame be NG."""
    unknown = classes.unknown(line, facts.class_names(found))
    hints = {one.name: one.hint for one in unknown if not one.doubtful}
    if hints:
        raise DemoError("\n".join(f"--ng {name}: no given model knows this class; {hints[name]}" for name in hints))


def shipped_models() -> list[str]:
    """The models that come with the package, of those that are there, whatever else has their names."""
    return [str(path) for name in shipped.NAMES if (path := shipped.path(name)) is not None]


def shipped_ng(models: Mapping[str, Model]) -> list[str]:
    """The classes that make a frame NG where only models of the package look; none where others do, too."""
    if not all(shipped.comes_with_us(Path(model.file)) for model in models.values()):
        return []
    sees = {"demo-cls": shipped.NG[-1:]}
    return list(dict.fromkeys(ng for name in models for ng in sees.get(name, shipped.NG[:-1])))


def resolve(word: str) -> tuple[str, Path]:
    """The name and the file of a `--model`: FILE.onnx, NAME=FILE.onnx, or a NAME, found where `workers start` finds it.

    Raises DemoError.
    """
    try:
        if Path(word).is_file() or (word.endswith(".onnx") and "=" not in word):
            name, path = name_of(Path(word)), Path(word)
        else:
            name, what = split(word)
            path = Path(what) if what else find(name, store=default_store())
    except ModelError as error:
        raise DemoError(str(error)) from None
    if not path.is_file():
        raise DemoError(f"--model {word}: there is no such file\n{NO_MODEL}")
    if not name:
        raise DemoError(f"--model {word}: no name can be made of its file name; write --model NAME={word}")
    return name, path.resolve()


def _models(words: list[str], folder: Path) -> dict[str, Model]:
    """The models of the line; of the package's with the threshold that was chosen for each. Raises DemoError."""
    found = dict(_tiny(folder) if word == TINY else resolve(word) for word in words)
    if len(found) < len(words):
        raise DemoError(f"two models have one name: {', '.join(words)}; write --model NAME=FILE.onnx for one of them")
    return {name: Model(file=str(path), confidence=_confidence(path)) for name, path in found.items()}


def _confidence(path: Path) -> float | None:
    if not shipped.comes_with_us(path):
        return None
    try:
        return shipped.confidence(path)
    except ModelError as error:
        raise DemoError(str(error)) from None


def _tiny(folder: Path) -> tuple[str, Path]:
    from workers import tiny

    path = folder / "tiny.onnx"
    tiny.make(path)
    return TINY, path


def _source(spec: str) -> str:
    """The source as the line file needs it: a path must not depend on the current folder."""
    from clients.errors import SourceError
    from clients.sources import open_source

    try:
        open_source(spec).close()
    except SourceError as error:
        raise DemoError(f"camera: {error}") from None
    path = Path(spec)
    return str(path.resolve()) if path.exists() else spec


def endpoints(ports: range) -> Endpoints:
    """Loopback endpoints on consecutive ports; the sessions' are the last ones."""
    named: dict[str, Any] = {name: f"tcp://127.0.0.1:{port}" for name, port in zip(_ENDPOINTS, ports, strict=False)}
    return Endpoints(**named, metrics=ports[len(_ENDPOINTS)], sessions=(ports[-_SESSIONS], ports[-1]))


def free_ports(count: int, start: int | None = None) -> range:
    """So many consecutive tcp ports of the loopback interface on which nobody listens now,
    not below `start`. Raises DemoError."""
    if start is None:
        start = random.randrange(
            _PORTS.start, (_PORTS.start + _PORTS.stop) // 2
        )  # two demos that start at once rarely meet
    while start + count <= _PORTS.stop:
        taken = next((port for port in range(start, start + count) if not _is_free(port)), None)
        if taken is None:
            return range(start, start + count)
        start = taken + 1
    raise DemoError(f"no {count} free ports in a row between {_PORTS.start} and {_PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
