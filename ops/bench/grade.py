"""What the records of an examination say together: precision, misses, false alarms, by size and contrast. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from clients.workpiece import CLASSES
from ops.bench.compare import Target
from ops.bench.examination import Flaw, Record
from ops.bench.precision import Share, average_precisions, share
from ops.bench.speed import Speed
from workers import shipped

#: Borders of the table, in pixels (square root of the area) and in grey levels.
SIZES: Final = (18.0, 28.0)
CONTRASTS: Final = (20.0, 45.0)
#: Who may call a part bad, and who says where.
JUDGES: Final = (*shipped.NAMES, "verdict", "threshold")
LOCATORS: Final = ("demo-det", "demo-seg", "threshold")


class Cell(Struct, frozen=True, kw_only=True):
    """Defects of one range of size and contrast. `missed`: those on parts that are called good, by judge; `unseen`:
    those at whose place nothing was claimed, by who claims places."""

    size: str
    contrast: str
    missed: dict[str, Share]
    unseen: dict[str, Share]


class Grade(Struct, frozen=True, kw_only=True):
    """`box`, `mask`: average precision at an overlap of half, by class; `accuracy`: of the classifier; `alarms`: sound
    parts that are called bad, by judge; `all`: of all defects what each of `cells` has of some."""

    parts: int
    box: dict[str, float]
    mask: dict[str, float]
    accuracy: Share
    alarms: dict[str, Share]
    all: Cell
    cells: list[Cell]


def grade(records: Sequence[Record]) -> Grade:
    """What the records say."""
    box, mask = (average_precisions((r.sights[n] for r in records), CLASSES) for n in ("demo-det", "demo-seg"))
    right = sum(record.bad["demo-cls"] == bool(record.defects) for record in records)
    sound = [record for record in records if not record.defects]
    return Grade(
        parts=len(records),
        box=box,
        mask=mask,
        accuracy=share(right, len(records)),
        alarms={who: share(sum(_bad(record, who) for record in sound), len(sound)) for who in JUDGES},
        all=_cell("all", "all", records, lambda defect: True),
        cells=_cells(records),
    )


def make_targets(graded: Grade, speeds: Iterable[Speed], size: int) -> list[Target]:
    """The promises about the shipped models; `size`: bytes of their files together."""
    missed, alarms = graded.all.missed["verdict"], graded.alarms["verdict"]
    defects = missed.count
    ratios = [
        make_target(f"time ÷ yolov5n's, {speed.name}", 0.3, speed.ratio, most=True)
        for speed in speeds
        if speed.name in shipped.NAMES
    ]
    return [
        make_target("mAP50 of boxes, demo-det", 0.95, mean(graded.box), defects, "defects"),
        make_target("mAP50 of masks, demo-seg", 0.90, mean(graded.mask), defects, "defects"),
        make_target("accuracy, demo-cls", 0.98, graded.accuracy.value, graded.parts, "parts"),
        make_target("missed defects, joined verdict", 0.005, missed.value, defects, "defects", most=True),
        make_target("false alarms, joined verdict", 0.01, alarms.value, alarms.count, "sound parts", most=True),
        make_target("defects unseen by the threshold", 0.2, graded.all.unseen["threshold"].value, defects, "defects"),
        make_target("MB together", 8.0, size / 1e6, most=True),
        *ratios,
    ]


def mean(precisions: dict[str, float]) -> float:
    """mAP: the mean over the classes that occur; 0 where none does."""
    return sum(precisions.values()) / len(precisions) if precisions else 0.0


def _bad(record: Record, who: str) -> bool:
    return record.verdict == "ng" if who == "verdict" else record.bad[who]


def _cells(records: Sequence[Record]) -> list[Cell]:
    def both(size: Callable[[float], bool], contrast: Callable[[float], bool]) -> Callable[[Flaw], bool]:
        return lambda defect: size(math.sqrt(defect.area)) and contrast(defect.contrast)

    return [
        _cell(size_name, contrast_name, records, both(size, contrast))
        for size_name, size in _ranges(SIZES)
        for contrast_name, contrast in _ranges(CONTRASTS)
    ]


def _ranges(borders: tuple[float, float]) -> list[tuple[str, Callable[[float], bool]]]:
    """Names and tests of what lies below, between and above the borders."""
    low, high = borders
    return [
        (f"< {low:g}", lambda value: value < low),
        (f"{low:g} to {high:g}", lambda value: low <= value < high),
        (f"≥ {high:g}", lambda value: value >= high),
    ]


def _cell(size: str, contrast: str, records: Sequence[Record], inside: Callable[[Flaw], bool]) -> Cell:
    chosen = [(r, place) for r in records for place, defect in enumerate(r.defects) if inside(defect)]
    return Cell(
        size=size,
        contrast=contrast,
        missed={who: share(sum(not _bad(record, who) for record, _ in chosen), len(chosen)) for who in JUDGES},
        unseen={who: share(sum(who not in r.located[at] for r, at in chosen), len(chosen)) for who in LOCATORS},
    )


def make_target(
    name: str, wanted: float, measured: float, count: int | None = None, unit: str = "", *, most: bool = False
) -> Target:
    """The promise that a figure reaches `wanted`; a share of `count` of `unit` needs so many that one of them more or
    less does not decide."""
    reached = measured <= wanted if most else measured >= wanted
    step = wanted if most or wanted < 0.5 else 1 - wanted
    needed = 0 if count is None else math.ceil(round(1 / step, 6))
    few = "" if count is None or count >= needed else f"too few: {count} {unit}, {needed} needed"
    return Target(name=name, wanted=wanted, measured=measured, where="", reached=reached, most=most, few=few)
