"""Reports: settings in words, tables for people, a JSON file for scripts."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from ops.bench.compare import Row, Target, format_size
from ops.bench.overload import Load, quantile
from ops.bench.soak import Record, slope
from ops.bench.trial import Settings
from ops.bench.worker import TARGET, CaseResult, Workload


def describe(settings: Settings, sizes: list[int]) -> str:
    """The settings that all subjects share, in words."""
    windows = ", ".join(f"{settings.window(size)} at {format_size(size)}" for size in sizes)
    return (
        f"{settings.seconds:g} s counted after {settings.warm_up:g} s of warm-up; {settings.cameras} senders; "
        f"I/O threads of load, proxy, consumers: {settings.io_threads} each; linger 0; socket buffers: the system's; "
        "broker and join as they ship; "
        f"high-water marks of the baselines, unsettled frames of one camera: {windows}"
    )


def tables(rows: list[Row], targets: list[Target]) -> list[Table]:
    """Throughput, latency, what CURVE takes (where it was measured), cost and targets."""
    curve = [_curve(rows)] if any(row.curve_messages is not None for row in rows) else []
    return [_throughput(rows), _latency(rows), *curve, _cost(rows), _targets(targets)]


def worker_table(results: list[CaseResult]) -> Table:
    """frames/s of worker and bare loop, case by case."""
    made = table(
        "Worker beside a bare onnxruntime loop (medians)",
        *("camera sends", "bare frames/s", "worker frames/s", "÷ bare: least", "median", "most", f"≥ {TARGET:g}"),
    )
    for result in results:
        ratio = result.ratio
        made.add_row(
            result.case.name,
            *(figure(median(speed.frames_per_s for speed in speeds), 1) for speeds in (result.bare, result.worker)),
            *(figure(value, 3) for value in (ratio or (None, None, None))),
            "reached" if ratio and ratio.median >= TARGET else "MISSED",
        )
    return made


def describe_workload(workload: Workload) -> str:
    """How the model is run, in words."""
    return (
        f"{Path(workload.model).name}: {workload.threads} sessions of {workload.engine_threads} threads, batches of at "
        f"most {workload.max_batch}; {workload.frames} frames counted in each trial; "
        "broker, join and camera run beside the worker"
    )


def soak_table(record: Record) -> Table:
    """Memory and files of every process: at the end, and their growth over the second half."""
    soak = record.soak
    made = table(
        f"Soak: {soak.cameras} × {soak.rate:g} frames/s of {format_size(soak.size)}, {soak.models} models, "
        f"{soak.seconds / 60:.1f} min ({soak.transport})",
        *("process", "MB at the end", "most MB", "MB/min, second half", "files at the end", "files/min", "cores used"),
    )
    for name, series in record.processes.items():
        made.add_row(
            name,
            *(figure(value, 1, 1e-6) for value in (series.rss[-1], max(series.rss), record.growth(series.rss))),
            figure(series.files[-1]),
            figure(record.growth(series.files), 2),
            figure(slope(record.times, series.cpu), 2),
        )
    bare = record.broker_without_payloads()
    ends = (bare[-1], max(bare), record.growth(bare))
    made.add_row("broker less in flight", *(figure(value, 1, 1e-6) for value in ends), "–", "–", "–")
    return made


def overload_table(loads: list[Load]) -> Table:
    """A line for each case: what was offered and taken, and what became of it."""
    made = table(
        "Overload",
        *("policy, cameras", "offered/s", "taken/s", "joined/s", "least, most of one camera", "fairness", "complete %"),
        *("SETTLED p99 s", "deadline s", "joined age p99 s", "bound s", "held MB", "broker beyond MB"),
    )
    for load in loads:
        case = load.overload
        shares = [load.joined.get(name, 0) for name in case.names()]
        inspect = case.policy == "inspect"
        made.add_row(
            f"{case.policy}, {case.cameras} {case.kind}",
            *(figure(value / case.seconds, 1) for value in (load.sent + load.skipped, load.sent, sum(shares))),
            f"{min(shares)}, {max(shares)}",
            figure(load.fairness, 3),
            figure(100 * load.kept, 2) if inspect else "–",
            figure(quantile(load.settle, 0.99), 3) if inspect else "–",
            figure(case.deadline, 1) if inspect else "–",
            figure(quantile(load.seconds, 0.99), 3),
            "–" if inspect else figure(case.freshest(), 3),
            figure(load.held, 1, 1e-6),
            figure(load.broker, 1, 1e-6),
        )
    return made


def table(title: str, *columns: str) -> Table:
    """A table whose first column is text and whose others are figures; readable as Markdown, too."""
    made = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made


def write_report(file: Path, content: dict[str, Any], shown: list[Table]) -> None:
    """Write `content` as JSON, or the tables alone where the name ends in `.md`."""
    if file.suffix == ".md":
        with file.open("w", encoding="utf-8") as stream:
            console = Console(file=stream, width=200, no_color=True)
            for part in shown:
                console.print(part)
        return
    file.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def figure(value: float | None, digits: int = 0, scale: float = 1.0) -> str:
    """A figure with a thousands separator; a dash for none."""
    return "–" if value is None or math.isnan(value) else f"{value * scale:,.{digits}f}"


def _throughput(rows: list[Row]) -> Table:
    made = table(
        "Throughput (medians)", "configuration", "raw msg/s", "proxy msg/s", "HWM 4", "broker msg/s", "tasks/s",
        "MB/s in + out", "÷ proxy: least", "median", "most", "÷ HWM 4: least", "median", "most",
    )  # fmt: skip
    for row in rows:
        made.add_row(
            row.name,
            *(figure(value) for value in (row.raw_messages, row.proxy_messages, row.tight_messages)),
            *(figure(value) for value in (row.messages, row.tasks)),
            figure(row.bytes_per_s, 0, 1e-6),
            *(figure(value, 2) for value in (row.ratio or (None, None, None))),
            *(figure(value, 2) for value in (row.tight_ratio or (None, None, None))),
        )
    return made


def _latency(rows: list[Row]) -> Table:
    made = table(
        "One-way latency, paced, ms (medians)",
        *("configuration", "broker p50", "broker p99", "p50 over raw's", "over proxy's"),
    )
    for row in rows:
        figures = (row.p50, row.p99, row.added_to_raw, row.added_to_proxy)
        made.add_row(row.name, *(figure(value, 2, 1e3) for value in figures))
    return made


def _curve(rows: list[Row]) -> Table:
    made = table(
        "CURVE beside plain (medians)", "configuration", "plain msg/s", "CURVE msg/s", "÷ plain: least", "median",
        "most", "plain p50 ms", "p99", "CURVE p50 ms", "p99",
    )  # fmt: skip
    for row in rows:
        made.add_row(
            row.name,
            *(figure(value) for value in (row.messages, row.curve_messages)),
            *(figure(value, 2) for value in (row.curve_ratio or (None, None, None))),
            *(figure(value, 2, 1e3) for value in (row.p50, row.p99, row.curve_p50, row.curve_p99)),
        )
    return made


def _cost(rows: list[Row]) -> Table:
    processes = list(dict.fromkeys(name for row in rows for name in row.cpu))
    columns = [f"{name} µs/task" for name in processes] + [f"{name} MB" for name in processes]
    made = table("Processor time for a task, and resident memory at most", "configuration", *columns)
    for row in rows:
        cpu = [figure(row.cpu.get(name), 1, 1e6) for name in processes]
        rss = [figure(row.rss.get(name), 0, 1e-6) for name in processes]
        made.add_row(row.name, *cpu, *rss)
    return made


def _targets(targets: list[Target]) -> Table:
    made = table("Targets (the worst row counts)", "target", "wanted", "measured", "at", "")
    for target in targets:
        made.add_row(target.name, target.bound, figure(target.measured, 2), target.where, target.verdict)
    return made
