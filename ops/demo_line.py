"""The line that `gongwei demo` runs: made from a few words of the command line, on free ports of this machine."""

from __future__ import annotations

import random
import re
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

#: The built-in model, and the class whose sight makes a frame NG where no other rule is given.
TINY: Final = "tiny"
TINY_NG: Final = "white"
NO_MODEL: Final = """\
a model is needed: gongwei demo --model FILE.onnx
FILE.onnx is a YOLOv5 (detection, segmentation or classification) exported to ONNX, for instance by
  python export.py --weights yolov5n.pt --include onnx      in a checkout of github.com/ultralytics/yolov5
Without one at hand, gongwei demo --model tiny uses a detector of bright spots that is built in."""
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
    models = {model_name(word): _model(word, folder) for word in settings.models}
    if len(models) < len(settings.models):
        raise DemoError(
            f"two models have one name: {', '.join(settings.models)}; copy one of the files to another name"
        )
    ng = settings.ng or ([TINY_NG] if list(models) == [TINY] else shipped_ng(settings.models))
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


def model_name(word: str) -> str:
    """A model's name from its file: the stem, in small letters, other characters made `-`."""
    stem = TINY if word == TINY else Path(word).stem
    name = re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).lstrip("_.-")[:64]
    if not name:
        raise DemoError(f"model {word!r}: no name can be made of its file name; copy it to another one")
    return name


def shipped_models() -> list[str]:
    """The models that come with the package, of those that are there."""
    return [name for name in shipped.NAMES if shipped.path(name) is not None]


def shipped_ng(words: list[str]) -> list[str]:
    """The classes that make a frame NG where only models of the package look; none where others do, too."""
    if not words or not set(words) <= set(shipped.NAMES):
        return []
    sees = {"demo-cls": shipped.NG[-1:]}
    return list(dict.fromkeys(name for word in words for name in sees.get(word, shipped.NG[:-1])))


def _model(word: str, folder: Path) -> Model:
    """A model of the line; one of the package's with the threshold that was chosen for it."""
    file = _model_file(word, folder)
    if word not in shipped.NAMES:
        return Model(file=str(file))
    try:
        return Model(file=str(file), confidence=shipped.confidence(file))
    except ModelError as error:
        raise DemoError(str(error)) from None


def _model_file(word: str, folder: Path) -> Path:
    if word == TINY:
        from workers import tiny

        path = folder / "tiny.onnx"
        tiny.make(path)
        return path
    path = shipped.path(word) or Path(word).resolve()
    if not path.is_file():
        raise DemoError(f"model {word!r}: there is no such file\n{NO_MODEL}")
    return path


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
