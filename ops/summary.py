"""The account of a demo, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from broker.line import Line
from broker.plural import counted
from ops.report import Latency, Report, Truth


def draw(report: Report, line: Line, pictures: Path, saved: int, untrained: Sequence[str] = ()) -> RenderableType:
    """Cameras, models, and the sum that must be right. `saved`: how many annotated pictures are in `pictures`;
    `untrained`: models of random weights."""
    return Group(
        Text(),
        _cameras(report),
        Text(),
        _models(report),
        Text(),
        *(Text(text) for text in _facts(report, line, pictures, saved)),
        *([Text(_nothing(untrained), style="bold yellow")] if untrained else []),
        _sum(report),
    )


def _cameras(report: Report) -> Table:
    table = _table("camera", "accepted", "joined", "complete", "incomplete", "lost", "missed", "p50 ms", "p99 ms")
    for name, camera in report.cameras.items():
        table.add_row(
            name,
            *map(str, (camera.accepted, camera.joined, camera.complete, camera.incomplete, camera.lost, camera.missed)),
            *_milliseconds(camera.latency),
        )
    if len(report.cameras) > 1:
        counts = (report.accepted, report.joined, report.complete, report.incomplete, report.lost, report.missed)
        table.add_row("in all", *map(str, counts), *_milliseconds(report.latency), style="bold")
    return table


def _models(report: Report) -> Table:
    table = _table("model", "ok", "failed", "expired", "dropped", "inference p50 ms", "p99 ms")
    for name, model in report.models.items():
        counts = (str(model.statuses.get(status, 0)) for status in ("ok", "failed", "expired", "dropped"))
        table.add_row(name, *counts, *_milliseconds(model.inference))
    return table


def _facts(report: Report, line: Line, pictures: Path, saved: int) -> list[str]:
    rate = report.joined / report.seconds if report.seconds else 0.0
    ng = [rules.ng for station in line.stations.values() if (rules := station.rules) is not None]
    facts = [
        f"{counted(report.joined, 'frame')} in {report.seconds:.1f} s ({rate:.1f}/s), requeued {report.requeued},"
        f" late answers {report.late}, restarts {report.restarts}",
        f"verdicts: {_counts(report.verdicts)}" + (f" (NG: a frame that shows {' or '.join(ng[0])})" if ng else ""),
        f"annotated pictures: {saved} in {pictures}",
    ]
    if (truth := report.truth) is not None:
        facts.insert(2, _truth(truth))
    if all(camera.rate == 0 for camera in line.cameras.values()):
        facts.append("cameras sent as fast as credit allowed: most of p50 is waiting for the models (try --rate 5)")
    return facts


def _nothing(untrained: Sequence[str]) -> str:
    return f"random weights: {', '.join(untrained)}: what they find means nothing, and no verdict on it is ok"


def _truth(truth: Truth) -> str:
    return (
        f"against the synthetic camera's truth: of {counted(truth.defective, 'defective part')} {truth.missed} missed,"
        f" of {counted(truth.sound, 'sound one')} {counted(truth.false_alarms, 'false alarm')},"
        f" {truth.undecided} without a verdict"
    )


def _sum(report: Report) -> Text:
    text = (
        f"accepted {report.accepted} = joined {report.joined} + lost {report.lost};"
        f" duplicates {report.duplicates}, dropped {report.dropped}, joined but not received {report.unreceived}"
    )
    if report.silent:
        text += f"; no report from {', '.join(report.silent)}"
    return Text(text, style="bold green" if report.passed else "bold red")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _milliseconds(latency: Latency) -> tuple[str, str]:
    p50, p99 = (f"{value * 1e3:.1f}" if value is not None else "-" for value in (latency.p50, latency.p99))
    return p50, p99


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    return table
