"""What the zoo has: every architecture by its name, how it is built, and what it costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from workers import coco
from workers.errors import UsageError
from workers.model import Task
from workers.placement import Fit, Scaling
from workers.zoo import yolov5
from workers.zoo.mobilenet import mobilenet
from workers.zoo.network import Network
from workers.zoo.yolov5 import ANCHORS, SIZES, Anchors

#: Builds the network for pictures of (height, width) pixels and a number of classes.
Builder: TypeAlias = Callable[[tuple[int, int], int, Anchors], Network]

#: Most classes that are believed.
MOST_CLASSES: Final = 1 << 16
#: What ImageNet's classifiers take, in grey levels 0..255.
_IMAGENET: Final = Scaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True, slots=True)
class Architecture:
    """One of the zoo. `side`: of the published input in pixels; `classes`: of the published weights."""

    name: str
    task: Task
    side: int
    classes: int
    scaling: Scaling
    fit: Fit
    builder: Builder

    def build(
        self, size: tuple[int, int] | None = None, classes: int | None = None, anchors: Anchors = ANCHORS
    ) -> Network:
        """The network without weights; `size` (height, width). Raises UsageError for what it cannot be."""
        count = self.classes if classes is None else classes
        least = 2 if self.task == "classify" else 1
        if not least <= count <= MOST_CLASSES:
            raise UsageError(f"{self.name} has {least} to {MOST_CLASSES} classes, not {count}: --classes")
        return self.builder(size or (self.side, self.side), count, anchors)

    def published(self, net: Network) -> float:
        """FLOPs of one picture as this model's authors count them; MobileNetV2: multiply-adds.

        Twice the multiply-adds, and what their counter had in it when the table was made: the biases (detection), the
        values that upsampling writes (segmentation), the classifier's last layer 49 times over (a picture of 32 pixels
        was counted, and multiplied by the area).
        """
        cost = net.cost
        if self.name == "mobilenetv2":
            return cost.macs
        match self.task:
            case "detect":
                return 2 * (cost.macs + cost.biases)
            case "segment":
                return 2 * (cost.macs + cost.upsampled)
            case "classify":
                return 2 * (cost.macs + 48 * cost.linear)


def _all() -> Iterator[Architecture]:
    tasks: tuple[tuple[Task, str, int, int, Scaling, Fit], ...] = (
        ("detect", "", 640, len(coco.NAMES), Scaling(), "letterbox"),
        ("segment", "-seg", 640, len(coco.NAMES), Scaling(), "letterbox"),
        ("classify", "-cls", 224, 1000, _IMAGENET, "crop"),
    )
    for task, suffix, side, classes, scaling, fit in tasks:
        for letter, size in SIZES.items():
            name = f"yolov5{letter}{suffix}"
            builder = partial(yolov5.yolov5, name, size, task)
            yield Architecture(name, task, side, classes, scaling, fit, builder)
    yield Architecture("mobilenetv2", "classify", 224, 1000, _IMAGENET, "crop", _mobilenet)


def _mobilenet(size: tuple[int, int], classes: int, anchors: Anchors) -> Network:
    return mobilenet("mobilenetv2", size, classes)


ARCHITECTURES: Final = {one.name: one for one in _all()}


def find(name: str) -> Architecture:
    """The architecture of that name. Raises UsageError naming those that there are."""
    found = ARCHITECTURES.get(re.sub(r"\s", "", name.lower()))
    if found is None:
        raise UsageError(f"the zoo has no {name!r}; it has {', '.join(ARCHITECTURES)}")
    return found
