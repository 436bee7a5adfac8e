"""The line file: one TOML that describes a production line (stations, cameras, models, routes, rules, endpoints)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from broker.wire import Policy

#: Names of cameras, stations and models: they become labels, topics and file names.
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}\Z")]
Seconds = Annotated[float, Meta(gt=0)]
Score = Annotated[float, Meta(ge=0, le=1)]


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
    sessions: tuple[int, int] = (7100, 7199)
    #: Prometheus port of the broker; the join has +1, the recorder +2, workers +3 and on. 0: none.
    metrics: int = 7010


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the broker. `window`: unsettled frames of one camera; `queue_bytes`: payloads held in all."""

    max_frame: Annotated[int, Meta(ge=1024)] = 32 << 20
    window: Annotated[int, Meta(ge=1, le=4096)] = 64
    queue_bytes: Annotated[int, Meta(ge=1 << 20)] = 1 << 30
    cameras: Annotated[int, Meta(ge=1)] = 256
    sessions: Annotated[int, Meta(ge=1)] = 256


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Verdict rules of a station. `ng`: class names that make a frame NG when seen with at least `least_score` and
    `least_area` (square pixels); `required`: class name -> how many a good frame (or part) must show."""

    ng: list[str] = field(default_factory=list)
    least_score: Score = 0.25
    least_area: Annotated[float, Meta(ge=0)] = 0.0
    required: dict[str, Annotated[int, Meta(ge=1)]] = field(default_factory=dict)


class Station(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place where a part is inspected. A part closes at its first frame + `part_deadline` seconds at the latest."""

    rules: Rules | None = None
    part_deadline: Seconds = 5.0


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the line and how `gongwei up` runs it: `workers` processes of `threads` sessions each."""

    file: str = ""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    max_batch: Annotated[int, Meta(ge=1, le=256)] = 1
    max_delay: Annotated[float, Meta(ge=0, le=10)] = 0.0


class CameraEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A camera: where its pictures come from, how often (frames/s; 0: as fast as credit allows), and its promise."""

    station: Name
    source: str = ""
    rate: Annotated[float, Meta(ge=0)] = 0.0
    policy: Policy = "inspect"
    deadline: Seconds = 5.0


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The models that see a camera's frames; a verdict can be `ok` only when all of `required` looked (default: all)."""

    models: Annotated[list[Name], Meta(min_length=1)]
    required: list[Name] | None = None


class Ledger(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ledger's SQLite file, relative to the line file."""

    path: str = "gongwei-data/ledger.sqlite"


class Recorder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kept pictures: where, and how much memory may wait for a verdict, in MB. `keep`: verdicts that are stored."""

    folder: str = "gongwei-data/pictures"
    memory: Annotated[int, Meta(ge=8)] = 256
    keep: list[str] = field(default_factory=lambda: ["ng", "incomplete", "none", "ok"])
    disk: Annotated[int, Meta(ge=1)] = 2048


class Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole line. Tables are keyed by name; every camera has a station and a route."""

    name: Name = "line"
    stations: dict[Name, Station]
    cameras: dict[Name, CameraEntry]
    models: dict[Name, Model]
    routes: dict[Name, Route]
    endpoints: Endpoints = field(default_factory=Endpoints)
    limits: Limits = field(default_factory=Limits)
    ledger: Ledger = field(default_factory=Ledger)
    recorder: Recorder = field(default_factory=Recorder)
