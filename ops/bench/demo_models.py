"""`gongwei bench demo-models`: how good the shipped models are on parts that they never saw, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from clients.workpiece import CLASSES, Defect
from ops.bench.compare import Target
from ops.bench.examination import Record, examine
from ops.bench.precision import Share, average_precisions, share
from ops.bench.speed import Speed, measure
from workers import shipped

#: The seed of the parts that are shown; no training draws the held-out world, whatever its seed.
SEED: Final = 20_261
#: Borders of the table, in pixels (square root of the area) and in grey levels.
SIZES: Final = (18.0, 28.0)
CONTRASTS: Final = (20.0, 45.0)
#: Who may call a part bad.
JUDGES: Final = (*shipped.NAMES, "verdict", "threshold")


class Cell(Struct, frozen=True, kw_only=True):
    """Defects of one range of size and contrast. `missed`: those on parts that are called good, by judge; `unseen`:
    those at whose place nothing was claimed, by who claims places."""

    size: str
    contrast: str
    missed: dict[str, Share]
    unseen: dict[str, Share]


class Result(Struct, frozen=True, kw_only=True):
    """`box`, `mask`: average precision at an overlap of half, by class; `accuracy`: of the classifier; `alarms`: sound
    parts that are called bad, `missed`: defects on parts that are called good, by judge."""

    parts: int
    seed: int
    box: dict[str, float]
    mask: dict[str, float]
    accuracy: Share
    alarms: dict[str, Share]
    missed: dict[str, Share]
    unseen: dict[str, Share]
    cells: list[Cell]
    speeds: list[Speed]
    bytes: int
    targets: list[Target]


def bench(folder: Path, parts: int, progress: Callable[[int], None] = lambda done: None, rounds: int = 15) -> Result:
    """Examine so many held-out parts, then time the models alone. Raises EngineError, ModelError, OSError."""
    records: list[Record] = []
    for chunk in examine(folder, parts, SEED):
        records += chunk
        progress(len(records))
    return judge(records, measure(folder, rounds), sum((folder / f"{n}.onnx").stat().st_size for n in shipped.NAMES))


def judge(records: Sequence[Record], speeds: list[Speed], size: int) -> Result:
    """What the records say."""
    box, mask = (average_precisions((r.sights[n] for r in records), CLASSES) for n in ("demo-det", "demo-seg"))
    right = sum(record.bad["demo-cls"] == bool(record.defects) for record in records)
    sound = [record for record in records if not record.defects]
    alarms = {who: share(sum(_bad(record, who) for record in sound), len(sound)) for who in JUDGES}
    everything = _cell("all", "all", records, lambda defect: True)
    figures = {
        "box": box, "mask": mask, "accuracy": share(right, len(records)), "alarms": alarms,
        "missed": everything.missed, "unseen": everything.unseen,
    }  # fmt: skip
    return Result(
        parts=len(records),
        seed=SEED,
        box=box,
        mask=mask,
        accuracy=share(right, len(records)),
        alarms=alarms,
        missed=everything.missed,
        unseen=everything.unseen,
        cells=_cells(records),
        speeds=speeds,
        bytes=size,
        targets=_targets(figures, speeds, size),
    )


def mean(precisions: dict[str, float]) -> float:
    """mAP: the mean over the classes that occur; 0 where none does."""
    return sum(precisions.values()) / len(precisions) if precisions else 0.0


def _bad(record: Record, who: str) -> bool:
    return record.verdict == "ng" if who == "verdict" else record.bad[who]


def _cells(records: Sequence[Record]) -> list[Cell]:
    return [
        _cell(size_name, contrast_name, records, lambda d, s=size, c=contrast: s(d.area**0.5) and c(d.contrast))
        for size_name, size in _ranges(SIZES, "px")
        for contrast_name, contrast in _ranges(CONTRASTS, "")
    ]


def _ranges(borders: Sequence[float], unit: str) -> list[tuple[str, Callable[[float], bool]]]:
    """Names and tests of the ranges below, between and above the borders."""
    edges = [0.0, *borders, float("inf")]
    named = [f"< {borders[0]:g}", *(f"{a:g}-{b:g}" for a, b in zip(borders, borders[1:], strict=False)), f">= {borders[-1]:g}"]
    return [
        (f"{name} {unit}".strip(), lambda value, a=low, b=high: a <= value < b)
        for name, low, high in zip(named, edges, edges[1:], strict=False)
    ]


def _cell(size: str, contrast: str, records: Sequence[Record], inside: Callable[[Defect], bool]) -> Cell:
    chosen = [(r, place) for r in records for place, defect in enumerate(r.defects) if inside(defect)]
    places = ("demo-det", "demo-seg", "threshold")
    return Cell(
        size=size,
        contrast=contrast,
        missed={who: share(sum(not _bad(record, who) for record, _ in chosen), len(chosen)) for who in JUDGES},
        unseen={who: share(sum(who not in r.located[at] for r, at in chosen), len(chosen)) for who in places},
    )


def _targets(figures: dict[str, object], speeds: Iterable[Speed], size: int) -> list[Target]:
    missed, alarms, unseen = figures["missed"], figures["alarms"], figures["unseen"]
    accuracy = figures["accuracy"]
    return [
        _target("mAP50 of boxes, demo-det", 0.95, mean(figures["box"])),
        _target("mAP50 of masks, demo-seg", 0.90, mean(figures["mask"])),
        _target("accuracy, demo-cls", 0.98, accuracy.value),
        _target("missed defects, joined verdict", 0.005, missed["verdict"].value, most=True),
        _target("false alarms, joined verdict", 0.01, alarms["verdict"].value, most=True),
        _target("unseen defects, threshold alone", 0.2, unseen["threshold"].value),
        _target("MB together", 8.0, size / 1e6, most=True),
        *(_target(f"time ÷ yolov5n's, {one.name}", 0.3, one.ratio, most=True) for one in speeds if one.name in shipped.NAMES),
    ]


def _target(name: str, wanted: float, measured: float, most: bool = False) -> Target:
    reached = measured <= wanted if most else measured >= wanted
    return Target(name=name, wanted=wanted, measured=measured, where="", reached=reached)


def show(result: Result, console: object) -> None:
    print(result)
