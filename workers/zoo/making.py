"""Makes a model of the zoo: the network, its weights, and the metadata that a worker reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.plural import counted
from workers import coco
from workers.describe import written
from workers.errors import ModelError, UsageError
from workers.metadata import PRECISION, RANDOM, SOURCE, WEIGHTS, names_in
from workers.model import Hints
from workers.zoo.catalogue import Architecture
from workers.zoo.donor import OnnxDonor, open_donor
from workers.zoo.initial import random_values
from workers.zoo.proof import proven, size_of
from workers.zoo.yolov5 import STRIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made. `weights`: None for random ones; `size`: (height, width) in pixels, `classes`, `names`: None
    for the file's, or the published ones."""

    kind: Architecture
    weights: Path | None = None
    size: tuple[int, int] | None = None
    classes: int | None = None
    seed: int = 0
    names: tuple[str, ...] | None = None


def make(order: Order) -> Any:
    """The onnx.ModelProto. Raises ModelError, also where weights from a file do not fit."""
    if order.weights is None:
        return _random(order)
    donor, kind = open_donor(order.weights), order.kind
    classes = donor.classes(kind)
    if order.classes not in (None, classes):
        raise ModelError(f"{order.weights}: has {counted(classes, 'class')}, not {order.classes}: leave --classes out")
    anchors = donor.anchors()
    if isinstance(donor, OnnxDonor):
        size = size_of(order.weights, order.size or (kind.side, kind.side))
        twin = kind.build(size, classes)
        anchors = proven(kind, twin.model(donor.values(twin), {}), size, order.weights)
    net = kind.build(order.size, classes, anchors)
    names = names_in(donor.metadata, str(order.weights)) if order.names is None else order.names
    names = _known(classes) if names is None else names
    if names is None:
        raise ModelError(f"{order.weights}: has {counted(classes, 'class')} and no names; give them with --labels FILE")
    if len(names) != classes:
        raise ModelError(
            f"{order.weights}: has {counted(classes, 'class')}, but {counted(len(names), 'name')}; give the right"
            " ones: --labels"
        )
    return net.model(donor.values(net), _metadata(order, names) | {SOURCE: f"{kind.name}, {order.weights.name}"})


def _random(order: Order) -> Any:
    kind = order.kind
    count = order.classes or (kind.classes if order.names is None else len(order.names))
    names = order.names if order.names is not None else _known(count)
    names = names if names is not None else tuple(f"class-{number}" for number in range(count))
    if len(names) != count:
        raise UsageError(
            f"{counted(count, 'class')}, but {counted(len(names), 'name')}: give --labels or --classes, or as many of"
            " both"
        )
    net = kind.build(order.size, count)
    said = {WEIGHTS: RANDOM, SOURCE: f"{kind.name}, seed {order.seed}"}
    return net.model(random_values(net, order.seed, kind.scaling), _metadata(order, names) | said)


def _known(classes: int) -> tuple[str, ...] | None:
    return coco.NAMES if classes == len(coco.NAMES) else None


def _metadata(order: Order, names: tuple[str, ...]) -> dict[str, str]:
    kind = order.kind
    scaling = kind.scaling
    size = order.size or (kind.side, kind.side)
    said = Hints(task=kind.task, names=names, size=size, mean=scaling.mean, std=scaling.std, fit=kind.fit)
    return {"stride": str(STRIDE), PRECISION: "fp32"} | written(said)
