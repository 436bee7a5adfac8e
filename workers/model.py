"""What a model file is: its task, classes, input size and scaling, from its metadata, its outputs, or a person.

Nothing is guessed in silence: what neither the file nor the command line says is asked for, with the flag to use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from broker.plural import counted
from workers import coco, layout
from workers.engine import Signature
from workers.errors import ModelError
from workers.layout import Layout
from workers.metadata import (
    FIT,
    MEAN,
    PRECISION,
    RANDOM,
    STD,
    WEIGHTS,
    Precision,
    names_in,
    numbers_in,
    word_in,
)
from workers.placement import Fit, Scaling
from workers.settings import Settings, settings

Task: TypeAlias = Literal["detect", "segment", "classify"]

#: Longest side of an input that is believed where only the metadata says it, in pixels.
SIDE_LIMIT: Final = 1 << 13
_TASKS: Final[tuple[Task, ...]] = get_args(Task)
_FITS: Final[tuple[Fit, ...]] = get_args(Fit)
_PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a person says about a model; it wins over what the file says."""

    task: Task | None = None
    names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: Fit | None = None
    layout: Layout | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model as the worker uses it. `size`: (height, width) of its input; `batch`: its fixed batch, None: any;
    `random`: its weights are, so that what it answers is no answer; `precision`: None where its file does not say;
    `settings`: how the file wants to be used."""

    task: Task
    layout: Layout
    names: tuple[str, ...]
    size: tuple[int, int]
    batch: int | None
    scaling: Scaling
    fit: Fit
    random: bool = False
    settings: Settings = field(default_factory=Settings)
    precision: Precision | None = None


def describe(signature: Signature, hints: Hints, where: str) -> Model:
    """The model in a file (`where`, for error texts). Raises ModelError with the flag that would help."""
    task = hints.task or _task(signature, where)
    if task == "classify":
        _ask_at_once(signature, hints, where)
    scaling, fit = _scaling(task, signature.metadata, hints, where)
    names = hints.names if hints.names is not None else names_in(signature.metadata, where)
    size = _asked(hints.size, signature, where) if hints.size else _size(signature, where)
    laid_out, count = _count(task, signature, hints, None if names is None else len(names), size, where)
    _several(task, count, where)
    return Model(
        task=task,
        layout=laid_out,
        names=_names(count, names, where),
        size=size,
        batch=signature.input[0],
        scaling=scaling,
        fit=fit,
        random=word_in(signature.metadata, WEIGHTS, (RANDOM,), where, "make the file again") is not None,
        settings=settings(signature.metadata, where),
        precision=word_in(signature.metadata, PRECISION, _PRECISIONS, where, "make it again"),
    )


def _ask_at_once(signature: Signature, hints: Hints, where: str) -> None:
    """Raises ModelError for a classifier of which more than one thing is unknown or wrong, with all of them."""

    def named() -> None:
        names = hints.names if hints.names is not None else names_in(signature.metadata, where)
        _names(_count("classify", signature, hints, None, None, where)[1], names, where)

    checks: list[Callable[[], object]] = [
        lambda: _scaling("classify", signature.metadata, hints, where),
        named,
        lambda: _asked(hints.size, signature, where) if hints.size else _size(signature, where),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except ModelError as error:
            problems.append(str(error).removeprefix(f"{where}: "))
    if len(problems) > 1:
        raise ModelError(f"{where}: {'; and: '.join(problems)}")


def check_names(signature: Signature, hints: Hints, where: str) -> None:
    """Raises ModelError when `hints` has other than one name per class, or a classifier has one class; says nothing
    where the file leaves the number of classes open."""
    names = hints.names
    try:
        task = hints.task or _task(signature, where)
        count = _count(task, signature, hints, None if names is None else len(names), hints.size, where)[1]
    except ModelError:
        return
    _several(task, count, where)
    if names is not None:
        _agree(count, names, where)


def _task(signature: Signature, where: str) -> Task:
    if said := word_in(signature.metadata, "task", _TASKS, where, "say --task"):
        return said
    match [len(shape) for shape in signature.outputs]:
        case [3]:
            return "detect"
        case [3, 4]:
            return "segment"
        case [2]:
            return "classify"
    raise ModelError(f"{where}: outputs {list(signature.outputs)} are of no known task; say --task, or export again")


def _count(
    task: Task, signature: Signature, hints: Hints, names: int | None, size: tuple[int, int] | None, where: str
) -> tuple[Layout, int]:
    """The layout of the outputs, and how many classes they have room for."""
    outputs = signature.outputs
    ranks = {"detect": [3], "segment": [3, 4], "classify": [2]}[task]
    if [len(shape) for shape in outputs] != ranks:
        raise ModelError(f"{where}: {task} needs outputs of {ranks} dimensions; has {list(outputs)}")
    if task == "classify":
        if outputs[0][1] is None:
            raise ModelError(f"{where}: the number of classes is not fixed; export with a fixed one")
        return "yolov5", outputs[0][1]
    coefficients = outputs[1][1] if task == "segment" else 0
    if coefficients is None:
        raise ModelError(f"{where}: the number of mask prototypes is not fixed; export with a fixed one")
    said = layout.written(signature.metadata, where)
    return layout.choose(outputs[0], coefficients, names, size, hints.layout or said, where)


def _names(count: int, names: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    if names is None and count == len(coco.NAMES):
        names = coco.NAMES
    if names is None:
        raise ModelError(
            f"{where}: has {counted(count, 'class')} and no names; give them with --labels FILE, one name per line"
        )
    _agree(count, names, where)
    return names


def _several(task: Task, count: int, where: str) -> None:
    """Probabilities sum to 1: that of an only class is always 1."""
    if task == "classify" and count < 2:
        raise ModelError(
            f"{where}: a classifier of {count} class, whose score would always be 1; a classifier needs two classes or"
            " more, one per outcome (ok, bad): train and export it so"
        )


def _agree(count: int, names: tuple[str, ...], where: str) -> None:
    if len(names) != count:
        raise ModelError(
            f"{where}: has {counted(count, 'class')}, but {counted(len(names), 'name')}; give the right ones with"
            " --labels FILE"
        )


def _asked(size: tuple[int, int], signature: Signature, where: str) -> tuple[int, int]:
    """The size that a person says, where the file takes it."""
    if any(side not in (own, None) for own, side in zip(size, signature.input[2:], strict=True)):
        fixed = "x".join("any" if side is None else str(side) for side in signature.input[2:])
        raise ModelError(f"{where}: its input is fixed at {fixed}; leave --size out")
    return size


def _size(signature: Signature, where: str) -> tuple[int, int]:
    _, channels, height, width = signature.input
    if channels not in (3, None):
        raise ModelError(f"{where}: its input has {channels} channels; colour models (3) are supported")
    if height is not None and width is not None:
        return height, width
    numbers = numbers_in(signature.metadata, "imgsz", where)
    if numbers is None or len(numbers) != 2:
        raise ModelError(f"{where}: its input size is not fixed; say it with --size HEIGHTxWIDTH")
    if not all(1 <= number <= SIDE_LIMIT and number == int(number) for number in numbers):
        raise ModelError(f"{where}: its metadata's imgsz {numbers} is no size; say it with --size HEIGHTxWIDTH")
    return int(numbers[0]), int(numbers[1])


def _scaling(task: Task, metadata: Mapping[str, str], hints: Hints, where: str) -> tuple[Scaling, Fit]:
    mean = hints.mean or numbers_in(metadata, MEAN, where)
    std = hints.std or numbers_in(metadata, STD, where)
    fit = hints.fit or word_in(metadata, FIT, _FITS, where, "say --fit")
    # YOLO's own scaling; a classifier's is known when Ultralytics exported it as one.
    known = task != "classify" or metadata.get("task") == "classify"
    if not known and (mean is None or std is None or fit is None):
        raise ModelError(
            f"{where}: a classifier whose scaling is unknown; say how grey levels 0..255 become its input with"
            " --mean, --std and --fit, as in --mean 127.5 --std 127.5 --fit stretch, or --mean 123.675,116.28,103.53"
            " --std 58.395,57.12,57.375 --fit crop (ImageNet); `workers import` writes it into the file"
        )
    default = Scaling()
    scaling = Scaling(_three(mean or default.mean, where), _three(std or default.std, where))
    if min(scaling.std) <= 0:
        raise ModelError(f"{where}: std {scaling.std} must be more than 0")
    return scaling, fit or ("crop" if task == "classify" else "letterbox")


def _three(values: tuple[float, ...], where: str) -> tuple[float, float, float]:
    if not all(map(math.isfinite, values)):
        raise ModelError(f"{where}: mean and std are finite numbers, not {values}")
    if len(values) == 1:
        return values[0], values[0], values[0]
    if len(values) != 3:
        raise ModelError(f"{where}: mean and std take one number or three (red, green, blue), not {len(values)}")
    return values[0], values[1], values[2]
