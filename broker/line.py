"""The line file: one TOML that describes a production line (stations, cameras, models, routes, rules, endpoints)."""

from __future__ import annotations

import hashlib
import itertools
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import tomli_w
from msgspec import Meta, Struct, field

from broker import consistency, document
from broker.wire import Policy, Verdict

_NAME_WORDS = "a name of up to 64 characters a-z 0-9 _ . -, the first a letter or digit"
#: Names of cameras, stations and models: they become labels, topics and file names.
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}\Z", description=_NAME_WORDS)]
ClassName = Annotated[str, Meta(pattern=r"\S", description="the name of a class, as the model has it")]
ModelNames = Annotated[list[Name], Meta(min_length=1, description="a list of models, at least one")]
Seconds = Annotated[float, Meta(gt=0, le=86400, description="seconds, more than 0, at most a day")]
Score = Annotated[float, Meta(ge=0, le=1, description="a score from 0 to 1")]


class Endpoints(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the processes of the line meet. `sessions`: the port numbers of the workers' data sockets."""

    frontend: str = "tcp://127.0.0.1:7001"
    backend: str = "tcp://127.0.0.1:7002"
    egress: str = "tcp://127.0.0.1:7003"
    live: str = "tcp://127.0.0.1:7004"
    catchup: str = "tcp://127.0.0.1:7005"
    copies: str = "tcp://127.0.0.1:7006"
    pictures: str = "tcp://127.0.0.1:7007"
    control: str = "tcp://127.0.0.1:7008"
    sessions: Annotated[tuple[int, int], Meta(description="[LOW, HIGH], port numbers")] = (7100, 7199)
    #: Prometheus port of the broker; the join has +1, the recorder +2, workers +3 and on. 0: none.
    metrics: Annotated[int, Meta(ge=0, le=65535)] = 7010


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the broker. `window`: unsettled frames of one camera; `queue_bytes`: payloads held in all."""

    max_frame: Annotated[int, Meta(ge=1024, le=1 << 31)] = 32 << 20
    window: Annotated[int, Meta(ge=1, le=4096)] = 64
    queue_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 50)] = 1 << 30
    cameras: Annotated[int, Meta(ge=1, le=1 << 16)] = 256
    sessions: Annotated[int, Meta(ge=1, le=1 << 16)] = 256


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Verdict rules of a station. `ng`: class names that make a frame NG when seen with at least `least_score` and
    `least_area` (square pixels); `required`: class name -> how many a good frame (or part) must show."""

    ng: list[ClassName] = field(default_factory=list)
    least_score: Score = 0.25
    least_area: Annotated[float, Meta(ge=0)] = 0.0
    required: dict[ClassName, Annotated[int, Meta(ge=1, le=1 << 20)]] = field(default_factory=dict)


class Station(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place where a part is inspected. A part closes at its first frame + `part_deadline` seconds at the latest."""

    rules: Rules | None = None
    part_deadline: Seconds = 5.0


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the line and how its workers run it: `workers` processes of `threads` sessions each, `max_delay` in
    seconds. `sha256`: of the version that is wanted; "": that of `file`, where the broker finds it, else any.
    `engine_threads`: threads inside one call, 0: the cores, divided. `confidence`: least score of a detection, None: as
    low as the rules ask for; `iou`: boxes of a class that overlap by more are one, None: the workers' own."""

    file: str = ""
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z", description="the sha256 of a file, 64 hex digits")] = ""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    max_batch: Annotated[int, Meta(ge=1, le=256)] = 1
    max_delay: Annotated[float, Meta(ge=0, le=10)] = 0.0
    device: Literal["cpu", "cuda"] = "cpu"
    confidence: Score | None = None
    iou: Score | None = None
    engine_threads: Annotated[int, Meta(ge=0, le=1024)] = 0


class CameraEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A camera: where its pictures come from, how often (frames/s; 0: as fast as credit allows), and its promise."""

    station: Name
    source: str = ""
    rate: Annotated[float, Meta(ge=0)] = 0.0
    policy: Policy = "inspect"
    deadline: Seconds = 5.0


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The models that see a camera's frames. A verdict is `ok` only when all of `required` looked (default: all)."""

    models: ModelNames
    required: ModelNames | None = None


class Ledger(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ledger's SQLite file, relative to the line file, and how much of the past it keeps: `keep_days` since a
    frame was accepted, `keep_gb` (2**30 bytes) on the disk in all. What is older or more is deleted; 0: nothing is."""

    path: str = "gongwei-data/ledger.sqlite"
    keep_days: Annotated[float, Meta(ge=0, le=36500, description="days, 0: for ever")] = 0.0
    keep_gb: Annotated[float, Meta(ge=0, le=1 << 20, description="GB, 0: as many as there are")] = 0.0


class Recorder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kept pictures: where, and how much memory may wait for a verdict and how much `disk` they may take, in MB.
    `keep`: verdicts whose pictures are stored."""

    folder: str = "gongwei-data/pictures"
    memory: Annotated[int, Meta(ge=8, le=1 << 30)] = 256
    keep: list[Verdict] = field(default_factory=lambda: ["ng", "incomplete", "none", "ok"])
    disk: Annotated[int, Meta(ge=1, le=1 << 30)] = 2048


#: What the text of a key looks like: 32 bytes as 40 characters.
Z85: Final = r"[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}"
#: What the owner of a key is: it decides which sockets let it in (`broker/security.py`).
Role = Literal["broker", "join", "recorder", "worker", "camera", "consumer", "operator"]
PublicKey = Annotated[str, Meta(pattern=rf"^{Z85}\Z", description="a public key: 40 characters, as in the .key file")]


class KeyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that may come in: its public half, what its owner is, and for a camera's the names that it may use."""

    role: Role
    public: PublicKey
    cameras: list[Name] = field(default_factory=list)


class Security(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With this table every socket of the line is CURVE. `folder`: where a machine keeps its secret keys, relative to
    the line file; `keys`: all keys of the line, by name."""

    folder: str = "keys"
    keys: dict[Name, KeyEntry]


class Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole line. Tables are keyed by name; every camera has a station and a route. `name`: None where the line file
    says none; its units are then named after the file."""

    name: Name | None = None
    stations: dict[Name, Station]
    cameras: dict[Name, CameraEntry]
    models: dict[Name, Model]
    routes: dict[Name, Route]
    endpoints: Endpoints = field(default_factory=Endpoints)
    limits: Limits = field(default_factory=Limits)
    ledger: Ledger = field(default_factory=Ledger)
    recorder: Recorder = field(default_factory=Recorder)
    security: Security | None = None

    def route(self, camera: str) -> tuple[list[str], list[str]]:
        """(models that see the camera's frames, those of them that must have looked). KeyError: no such camera."""
        route = self.routes[camera]
        return route.models, route.models if route.required is None else route.required

    def cameras_at(self, station: str) -> list[str]:
        """The inspect cameras of a station: those whose frames make up a part."""
        return [name for name, entry in self.cameras.items() if entry.station == station and entry.policy == "inspect"]


class LineError(Exception):
    """A line file that cannot be used. Each of `problems` says where, which key, what was found and what is allowed."""

    def __init__(self, where: str, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.where = where
        self.problems = problems


def load(path: Path) -> Line:
    """The line of a TOML file. Raises LineError, also when the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LineError(str(path), [f"{path}: cannot be read: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise LineError(str(path), [f"{path}:{number}: is not UTF-8 text; save the file as UTF-8"]) from None
    return parse(text, str(path))


def parse(text: str, where: str = "line file") -> Line:
    """The line that `text` (TOML) describes; `where` names it in the problems of LineError."""
    if deep := document.too_deep(text):
        raise LineError(where, [f"{where}:{deep}: more than {document.DOTS} dots: no key of a line file is like that"])
    try:
        content = tomllib.loads(text.removeprefix("\ufeff"))  # Windows editors write it
    except (ValueError, RecursionError) as error:  # also numbers and nesting that are too long for Python
        raise LineError(where, [_syntax_problem(where, text, str(error))]) from None
    return _build(content, where, text)


def digest(text: str) -> str:
    """What EXPECT and metrics call this text of a line file: 12 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def from_flags(
    *, cameras: list[str], models: list[str], deadline: float = 5.0, **endpoints: str | int | tuple[int, int]
) -> Line:
    """A line without a file: every camera sees every model, at one station without rules.

    A camera is `NAME`, or `NAME:monitor`; `deadline` in seconds holds for all. `endpoints` are keys of `Endpoints`.
    """
    flags = [flag.partition(":") for flag in cameras]
    names = [name for name, _, _ in flags]
    twice = [name for given in (names, models) for name in dict.fromkeys(given) if given.count(name) > 1]
    if twice:
        raise LineError("command line", [f"command line: {name} is given twice" for name in twice])
    entries = {
        name: {"station": "station", "policy": policy or "inspect", "deadline": deadline} for name, _, policy in flags
    }
    content = {
        "stations": {"station": {}},
        "cameras": entries,
        "models": {model: {} for model in models},
        "routes": {name: {"models": models} for name in names},
        "endpoints": endpoints,
    }
    return _build(content, "command line", "")


def to_toml(line: Line) -> str:
    """The text of a line file that `parse` reads as `line`."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(line)))


def _build(content: dict[str, Any], where: str, text: str) -> Line:
    found = itertools.chain(document.problems(content, Line), consistency.problems(_with_defaults(content)))
    problems = document.located(where, text, found)
    if problems:
        raise LineError(where, problems)
    return msgspec.convert(content, Line)


def _with_defaults(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with every key of `endpoints` and `limits`, and no other there."""
    tables = {"endpoints": msgspec.to_builtins(Endpoints()), "limits": msgspec.to_builtins(Limits())}
    for name, table in tables.items():
        given = content.get(name)
        tables[name] = {key: given.get(key, table[key]) for key in table} if isinstance(given, dict) else table
    return content | tables


def _syntax_problem(where: str, text: str, error: str) -> str:
    """tomllib ends its messages with "(at line 3, column 7)" or "(at end of document)"."""
    end = text.rstrip().count("\n") + 1
    line = re.search(r"\(at line (\d+), column", error)
    return f"{where}:{line[1] if line else end}: is not TOML: {error}"


def _without_none(value: Any) -> Any:
    """TOML has no null: a key that is None is left out."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
