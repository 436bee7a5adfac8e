"""`gongwei bench demo-models`: how good the demo models are on parts that they never saw, and how fast."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct
from rich.table import Table

from ops.bench import quantised
from ops.bench.compare import Target
from ops.bench.examination import Record, examine
from ops.bench.grade import JUDGES, LOCATORS, Cell, Grade, grade, make_targets, mean
from ops.bench.precision import Share
from ops.bench.report import figure, table
from ops.bench.speed import Speed, measure
from workers import shipped
from workers.metadata import Precision

#: The seed of the parts that are examined; no training draws the held-out world, whatever its seed.
SEED: Final = 20_261
#: Rounds in which the models are timed in turn.
_ROUNDS: Final = 15


class Result(Struct, frozen=True, kw_only=True):
    """All figures of one run. `size`: bytes of the three files together; `precisions`: grades of fp16 and int8, where
    they were asked for."""

    seed: int
    grade: Grade
    speeds: list[Speed]
    size: int
    targets: list[Target]
    precisions: dict[Precision, Grade] = {}


def bench(
    folder: Path,
    parts: int,
    progress: Callable[[int], None] = lambda done: None,
    *,
    processes: int = 0,
    seed: int = SEED,
    calibration: int = 0,
) -> Result:
    """Examine so many held-out parts, `processes` at a time (0: one a core), then time the models alone; `calibration`:
    the same parts again in fp16, and in int8 that is calibrated with so many pictures; 0: neither.

    Raises OSError for models that are not there, ErrandError for those that cannot be loaded, ModelError for those
    that cannot be made fp16 or int8.
    """
    size = sum((folder / f"{name}.onnx").stat().st_size for name in shipped.NAMES)
    done = itertools.count(1)

    def examined(models: Path) -> Grade:
        records: list[Record] = []
        for record in examine(models, parts, seed, processes):
            records.append(record)
            progress(next(done))
        return grade(records)

    graded, others = examined(folder), dict[Precision, Grade]()
    if calibration:
        with tempfile.TemporaryDirectory() as made:
            folders = quantised.make(folder, Path(made), calibration)
            others = {precision: examined(models) for precision, models in folders}
    speeds = measure(folder, _ROUNDS)
    targets = make_targets(graded, speeds, size) + quantised.make_targets(graded, others)
    return Result(seed=seed, grade=graded, speeds=speeds, size=size, targets=targets, precisions=others)


def tables(result: Result) -> list[Table]:
    """Average precision, who misses what, time, fp16 and int8 where they were asked for, targets."""
    others = [_precisions(result)] if result.precisions else []
    shown = [
        _average(result.grade),
        _judges(result.grade),
        _accuracy(result.grade),
        _cells(result.grade),
        _speeds(result),
    ]
    return [*shown, *others, _targets(result)]


def _average(graded: Grade) -> Table:
    made = table("Average precision at an overlap of half", "model", *graded.box, "mAP50")
    for name, precisions in (("demo-det, boxes", graded.box), ("demo-seg, masks", graded.mask)):
        made.add_row(name, *(figure(value, 3) for value in precisions.values()), figure(mean(precisions), 3))
    return made


def _judges(graded: Grade) -> Table:
    made = table(
        f"{graded.parts} parts, % with Wilson's interval at 95 %",
        *("who judges", "missed", "of defects", "false alarms", "of sound parts", "unseen at their place"),
    )
    for who in JUDGES:
        missed, alarms = graded.all.missed[who], graded.alarms[who]
        unseen = _percent(graded.all.unseen[who]) if who in LOCATORS else "–"
        made.add_row(who, _percent(missed), str(missed.count), _percent(alarms), str(alarms.count), unseen)
    return made


def _accuracy(graded: Grade) -> Table:
    made = table("Good told from bad, %", "model", "right", "of parts")
    made.add_row("demo-cls", _percent(graded.accuracy), str(graded.accuracy.count))
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


def _precisions(result: Result) -> Table:
    made = table(
        "The same parts in other precisions",
        *("precision", "mAP50 of boxes", "mAP50 of masks", "accuracy"),
        *("missed defects, joined verdict, %", "false alarms, joined verdict, %"),
    )
    grades: dict[Precision, Grade] = {"fp32": result.grade}
    for precision, graded in (grades | result.precisions).items():
        shares = (graded.all.missed["verdict"].value, graded.alarms["verdict"].value)
        figures = (mean(graded.box), mean(graded.mask), graded.accuracy.value)
        made.add_row(precision, *(figure(one, 4) for one in figures), *(figure(one, 2, 100) for one in shares))
    return made


def _targets(result: Result) -> Table:
    made = table("Targets", "target", "wanted", "measured", "")
    for target in result.targets:
        made.add_row(target.name, target.bound, figure(target.measured, 4), target.verdict)
    return made


def _name(cell: Cell) -> str:
    return "all" if cell.size == "all" else f"{cell.size} px, {cell.contrast}"


def _percent(one: Share) -> str:
    return f"{figure(one.value, 2, 100)} ({100 * one.low:.2f} to {100 * one.high:.2f})"
