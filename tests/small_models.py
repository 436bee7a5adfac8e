"""The smallest models of each kind, and what tests of fp16 and int8 share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from workers.metadata import Precision
from workers.precision.conversion import convert
from workers.precision.wanted import Wanted
from workers.zoo.catalogue import find
from workers.zoo.making import Order, make

#: The smallest of each kind, at a small, oblong input.
SMALL = {
    "yolov5n": (64, 96),
    "yolov5n-seg": (96, 64),
    "yolov5n-cls": (64, 64),
    "mobilenetv2": (64, 96),
}
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
PHOTOS = ("bus.jpg", "eagle.jpg", "person.jpg", "zidane.jpg")
EXPORTS = ("yolov5n", "yolov5n-seg")


def small(name: str) -> Any:
    return make(Order(kind=find(name), size=SMALL[name], classes=3))


def converted(model: Any, precision: Precision, folder: Path) -> Any:
    return convert(model, Wanted(precision, folder if precision == "int8" else None))


def run(model: Any, batch: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made: list[Any] = session.run(None, {session.get_inputs()[0].name: batch})
    return made
