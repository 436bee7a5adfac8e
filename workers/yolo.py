"""What a YOLO detector's output says: candidates over the threshold, then class-wise non-maximum suppression.

Pure numpy. Boxes are float32 [n, 4] as x1, y1, x2, y2 in pixels of the model's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from broker.wire import MAX_DETECTIONS
from workers.errors import OutputError
from workers.layout import HEADS, Layout

Array: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.intp]

#: Candidates that enter non-maximum suppression, best scores first; it bounds the time that a noisy picture can cost.
MAX_CANDIDATES: Final = 1000
_NOT_FINITE: Final = "the model answered boxes or scores that are not finite: check its weights"


@dataclass(frozen=True, slots=True)
class Detections:
    """n detections, best score first: boxes [n, 4], scores [n], classes [n], mask coefficients [n, 32] or [n, 0]."""

    boxes: Array
    scores: Array
    classes: Indices
    coefficients: Array

    def __len__(self) -> int:
        return len(self.scores)

    def pick(self, indices: Indices) -> Detections:
        return Detections(self.boxes[indices], self.scores[indices], self.classes[indices], self.coefficients[indices])


def detect(output: Array, classes: int, confidence: float, iou: float, layout: Layout = "yolov5") -> Detections:
    """The detections in one picture's output, at most MAX_DETECTIONS; `workers.layout` says how it is laid out.

    `confidence` is the least score (of YOLOv5: objectness x class score); boxes of one class that overlap by more than
    `iou` are one.
    """
    find = candidates if layout == "yolov5" else columns
    found = find(output, classes, confidence)
    return found.pick(suppress(found.boxes, found.scores, found.classes, iou, MAX_DETECTIONS))


def candidates(output: Array, classes: int, confidence: float) -> Detections:
    """Rows over the threshold, of [boxes, 5 + classes (+ coefficients)], each with its best class, best score first, at
    most MAX_CANDIDATES.

    Raises OutputError for an objectness, or for a row over the threshold, that is not finite.
    """
    # Copied once: every row of a column is another cache line.
    objectness = output[:, 4].copy()
    if not np.isfinite(objectness).all():
        raise OutputError(
            "the model answered an objectness that is not finite: check its weights and its input scaling"
        )
    rows = output[np.flatnonzero(objectness > confidence)]
    if not np.isfinite(rows).all():
        raise OutputError(_NOT_FINITE)
    head = HEADS["yolov5"]
    scores = rows[:, head : head + classes] * rows[:, 4:head]
    best = scores.argmax(axis=1)
    score = scores[np.arange(len(rows)), best]
    kept = np.flatnonzero(score > confidence)
    kept = kept[np.argsort(-score[kept], kind="stable")[:MAX_CANDIDATES]]
    return Detections(corners(rows[kept, :4]), score[kept], best[kept], rows[kept, head + classes :])


def columns(output: Array, classes: int, confidence: float) -> Detections:
    """The same of YOLOv8's columns, [4 + classes (+ coefficients), boxes]: a box's best class score is its own.

    Raises OutputError for scores, or for a column over the threshold, that are not finite.
    """
    head = HEADS["yolov8"]
    scores = output[head : head + classes]
    score = scores.max(axis=0)
    if not np.isfinite(score).all():  # a maximum is NaN where any number is
        raise OutputError(_NOT_FINITE)
    kept = np.flatnonzero(score > confidence)
    kept = kept[np.argsort(-score[kept], kind="stable")[:MAX_CANDIDATES]]
    rows = output[:, kept].T
    if not np.isfinite(rows).all():
        raise OutputError(_NOT_FINITE)
    return Detections(corners(rows[:, :4]), score[kept], scores[:, kept].argmax(axis=0), rows[:, head + classes :])


def corners(boxes: Array) -> Array:
    """Boxes given as centre x, centre y, width, height."""
    half = boxes[:, 2:] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def suppress(boxes: Array, scores: Array, classes: Indices, iou: float, limit: int) -> Indices:
    """Class-wise greedy non-maximum suppression: indices of the boxes that stay, best score first, at most `limit`."""
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    kept: list[int] = []
    while order.size and len(kept) < limit:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        overlap = intersections(boxes[first], boxes[rest])
        # A product instead of a quotient: two empty boxes have no overlap, not NaN.
        same = (overlap > iou * (areas[first] + areas[rest] - overlap)) & (classes[rest] == classes[first])
        order = rest[~same]
    return np.array(kept, np.intp)


def intersections(box: Array, boxes: Array) -> Array:
    """Areas that `box` [4] shares with each of `boxes` [n, 4]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared: Array = sides.clip(0).prod(axis=1)
    return shared
