"""What a YOLOv5 detector's output says: candidates over the threshold, then class-wise non-maximum suppression.

Pure numpy. Boxes are float32 [n, 4] as x1, y1, x2, y2 in pixels of the model's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from broker.wire import MAX_DETECTIONS
from workers.errors import OutputError

Array: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.intp]

#: Candidates that enter non-maximum suppression, best scores first; it bounds the time that a noisy picture can cost.
MAX_CANDIDATES: Final = 1000
#: Columns before the class scores: centre x, centre y, width, height, objectness.
HEAD: Final = 5


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


def detect(output: Array, classes: int, confidence: float, iou: float) -> Detections:
    """The detections in one picture's output, [rows, 5 + classes (+ coefficients)], at most MAX_DETECTIONS.

    `confidence` is the least objectness x class score; boxes of one class that overlap by more than `iou` are one.
    """
    found = candidates(output, classes, confidence)
    return found.pick(suppress(found.boxes, found.scores, found.classes, iou, MAX_DETECTIONS))


def candidates(output: Array, classes: int, confidence: float) -> Detections:
    """Rows over the threshold, each with its best class, best score first, at most MAX_CANDIDATES.

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
        raise OutputError("the model answered boxes or scores that are not finite: check its weights")
    scores = rows[:, HEAD : HEAD + classes] * rows[:, 4:HEAD]
    best = scores.argmax(axis=1)
    score = scores[np.arange(len(rows)), best]
    kept = np.flatnonzero(score > confidence)
    kept = kept[np.argsort(-score[kept], kind="stable")[:MAX_CANDIDATES]]
    return Detections(corners(rows[kept, :4]), score[kept], best[kept], rows[kept, HEAD + classes :])


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
