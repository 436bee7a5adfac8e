"""`gongwei bench demo-models`: how good the demo models are on parts that they never saw, and how fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct
from rich.table import Table

from ops.bench.compare import Target
from ops.bench.examination import Record, examine
from ops.bench.grade import JUDGES, LOCATORS, Cell, Grade, grade, make_targets, mean
from ops.bench.precision import Share
from ops.bench.report import figure, table
from ops.bench.speed import Speed, measure
from workers import shipped

#: The seed of the parts that are examined; no training draws the held-out world, whatever its seed.
SEED: Final = 20_261
#: Rounds in which the models are timed in turn.
_ROUNDS: Final = 15


class Result(Struct, frozen=True, kw_only=True):
    """All figures of one run. `size`: bytes of the three files together."""

    seed: int
    grade: Grade
    speeds: list[Speed]
    size: int
    targets: list[Target]


def bench(
    folder: Path,
    parts: int,
    progress: Callable[[int], None] = lambda done: None,
    *,
    processes: int = 0,
    seed: int = SEED,
) -> Result:
    """Examine so many held-out parts, `processes` at a time (0: one a core), then time the models alone.

    Raises OSError for models that are not there, ErrandError for those that cannot be loaded.
    """
    size = sum((folder / f"{name}.onnx").stat().st_size for name in shipped.NAMES)
    records: list[Record] = []
    for record in examine(folder, parts, seed, processes):
        records.append(record)
        progress(len(records))
    graded, speeds = grade(records), measure(folder, _ROUNDS)
    return Result(seed=seed, grade=graded, speeds=speeds, size=size, targets=make_targets(graded, speeds, size))


def tables(result: Result) -> list[Table]:
    """Precision, who misses what, time, targets."""
    return [_precision(result.grade), _judges(result.grade), _cells(result.grade), _speeds(result), _targets(result)]


def _precision(graded: Grade) -> Table:
    made = table("Average precision at an overlap of half", "model", *graded.box, "mAP50")
    for name, precisions in (("demo-det, boxes", graded.box), ("demo-seg, masks", graded.mask)):
        made.add_row(name, *(figure(value, 3) for value in precisions.values()), figure(mean(precisions), 3))
    return made


def _judges(graded: Grade) -> Table:
    made = table(
        f"{graded.parts} parts, % with Wilson's interval at 95 %",
        *("who judges", "missed defects", "of", "false alarms", "of", "defects unseen at their place"),
    )
    for who in JUDGES:
        missed, alarms = graded.all.missed[who], graded.alarms[who]
        unseen = _percent(graded.all.unseen[who]) if who in LOCATORS else "–"
        made.add_row(who, _percent(missed), str(missed.count), _percent(alarms), str(alarms.count), unseen)
    accuracy = graded.accuracy
    made.add_row("accuracy of demo-cls", _percent(accuracy), str(accuracy.count), "", "", "")
    return made


def _cells(graded: Grade) -> Table:
    made = table(
        "Missed by size (square root of the area, px) and contrast (grey levels), % of the defects",
        *("size, contrast", "defects", *JUDGES, *(f"unseen by {who}" for who in LOCATORS)),
    )
    for cell in [*graded.cells, graded.all]:
        shares = [cell.missed[who] for who in JUDGES] + [cell.unseen[who] for who in LOCATORS]
        made.add_row(_name(cell), str(cell.missed["verdict"].count), *(figure(one.value, 2, 100) for one in shares))
    return made


def _speeds(result: Result) -> Table:
    made = table("One picture on one core (medians)", "model", "ms", "÷ yolov5n at 640")
    for speed in result.speeds:
        made.add_row(speed.name, figure(speed.seconds, 1, 1e3), figure(speed.ratio, 3))
    return made


def _targets(result: Result) -> Table:
    made = table("Targets", "target", "wanted", "measured", "")
    for target in result.targets:
        said = "reached" if target.reached else "MISSED"
        made.add_row(target.name, f"{target.wanted:g}", figure(target.measured, 4), said)
    return made


def _name(cell: Cell) -> str:
    return "all" if cell.size == "all" else f"{cell.size} px, {cell.contrast}"


def _percent(one: Share) -> str:
    return f"{figure(one.value, 2, 100)} ({100 * one.low:.2f} to {100 * one.high:.2f})"
