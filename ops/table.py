"""The live table of a line, from two snapshots: now, and one reading before. Pure."""

from __future__ import annotations

import math
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from ops.columns import Columns
from ops.scrape import increase, quantile, rate
from ops.snapshot import ChildState, Snapshot
from ops.supervisor import State

#: Histograms: from acceptance to publication of a frame (join), and of a frame's time in each stage of a worker.
JOINED_WITHIN: Final = "gongwei_joined_within_total"
STAGE_SECONDS: Final = "gongwei_worker_stage_seconds_bucket"
#: Columns by table; the second list is what is left out on a narrow terminal, the least important first.
_CAMERAS: Final = (
    ("camera", "accepted", "frames/s", "in flight", "complete", "incomplete", "missed"),
    ("in flight", "complete", "frames/s"),
)
_MODELS: Final = (
    ("model", "sessions", "ok", "ok/s", "queued", "oldest ms", "running", "failed", "expired", "requeued", "p50 ms",
     "p99 ms"),
    ("requeued", "oldest ms", "running", "p50 ms", "queued", "ok/s", "p99 ms"),
)  # fmt: skip
_PROCESSES: Final = (("process", "state", "pid", "up s", "restarts"), ("up s", "pid"))
_STATES: Final = {State.RUNNING: "green", State.WAITING: "yellow", State.STARTING: "yellow", State.ENDED: "dim"}


def draw(new: Snapshot, old: Snapshot) -> RenderableType:
    """Cameras, models and processes, one table each."""
    p50, p99 = _latency(_joined(new), _joined(old))
    latency = Text(f"accepted to published: p50 {p50} ms, p99 {p99} ms", style="dim")
    return Group(Text(), _cameras(new, old), latency, Text(), _models(new, old), Text(), _processes(new))


def plain(new: Snapshot, old: Snapshot) -> str:
    """The line in one line, for logs."""
    accepted, joined = "gongwei_accepted_total", "gongwei_joined_total"
    open_frames = new.broker.total("gongwei_open_frames")
    pieces = [
        f"accepted {new.broker.total(accepted):.0f} ({_rate(new, old, accepted):.1f}/s)",
        f"joined {new.join.total(joined):.0f}",
        f"in flight {open_frames:.0f}",
        *(f"{model}: {count} sessions" for model, count in sorted(new.sessions().items())),
        f"restarts {new.restarts}",
    ]
    return "line: " + ", ".join(pieces)


def _cameras(new: Snapshot, old: Snapshot) -> Columns:
    table = Columns(*_CAMERAS)
    for camera, accepted in sorted(new.broker.by("gongwei_accepted_total", "camera").items()):
        before = old.broker.total("gongwei_accepted_total", camera=camera)
        table.add_row(
            camera,
            f"{accepted:.0f}",
            f"{rate(accepted, before, new.at - old.at):.1f}",
            f"{new.broker.total('gongwei_open_frames', camera=camera):.0f}",
            f"{new.join.total('gongwei_joined_total', camera=camera, outcome='complete'):.0f}",
            _bad(new.join.total("gongwei_joined_total", camera=camera, outcome="incomplete")),
            _bad(new.broker.total("gongwei_skipped_total", camera=camera)),
        )
    return table


def _models(new: Snapshot, old: Snapshot) -> Columns:
    table = Columns(*_MODELS)
    tasks = "gongwei_tasks_total"
    for model, sessions in sorted(new.sessions().items()):
        done, before = (snapshot.broker.total(tasks, model=model, status="ok") for snapshot in (new, old))
        table.add_row(
            model,
            Text(f"{sessions}", style="" if sessions else "bold red"),
            f"{done:.0f}",
            f"{rate(done, before, new.at - old.at):.1f}",
            f"{new.broker.total('gongwei_queue_frames', model=model):.0f}",
            f"{new.broker.total('gongwei_queue_oldest_age_seconds', model=model) * 1e3:.0f}",
            f"{new.broker.total('gongwei_in_flight_frames', model=model):.0f}",
            _bad(new.broker.total(tasks, model=model, status="failed")),
            _bad(new.broker.total(tasks, model=model, status="expired")),
            _bad(new.broker.total("gongwei_requeued_total", model=model)),
            *_latency(*(_inference(snapshot, model) for snapshot in (new, old))),
        )
    return table


def _processes(new: Snapshot) -> Columns:
    table = Columns(*_PROCESSES)
    for child in new.children:
        style = _STATES[child.state]
        table.add_row(
            child.name,
            Text(_state(child), style=style),
            str(child.pid or ""),
            f"{child.uptime:.0f}" if child.pid else "",
            _bad(child.restarts),
        )
    return table


def _state(child: ChildState) -> str:
    if child.state is State.WAITING and child.restarts:
        return "restarts"
    return child.state.value


def _bad(count: float) -> Text:
    """A count that should be 0."""
    return Text(f"{count:.0f}", style="yellow" if count else "")


def _inference(snapshot: Snapshot, model: str) -> dict[float, float]:
    return snapshot.workers.buckets(STAGE_SECONDS, model=model, stage="inference")


def _joined(snapshot: Snapshot) -> dict[float, float]:
    return snapshot.join.buckets(JOINED_WITHIN, edge="le")


def _rate(new: Snapshot, old: Snapshot, name: str) -> float:
    return rate(new.broker.total(name), old.broker.total(name), new.at - old.at)


def _latency(new: dict[float, float], old: dict[float, float]) -> tuple[str, str]:
    """p50 and p99 in ms of what came between two readings; of all, if nothing did."""
    gained = increase(new, old)
    if not gained or max(gained.values()) <= 0:
        gained = new
    return milliseconds(quantile(0.5, gained)), milliseconds(quantile(0.99, gained))


def milliseconds(seconds: float) -> str:
    """Seconds in ms for a table; `-` for nan."""
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:.1f}"
