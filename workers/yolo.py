"""What a YOLO detector's output says: candidates over the threshold, then class-wise non-maximum suppression.

Pure numpy. Boxes are float32 [n, 4] as x1, y1, x2, y2 in pixels of the model's input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from broker.wire import MAX_DETECTIONS
from workers.errors import OutputError
from workers.layout import HEADS, Layout

Array: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.intp]
Mask: TypeAlias = NDArray[np.bool_]

#: Candidates that enter non-maximum suppression, best scores first; it bounds the time that a noisy picture can cost.
MAX_CANDIDATES: Final = 1000
#: Boxes that are settled together.
_BLOCK: Final = 160
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
    likely = np.flatnonzero(objectness > confidence)
    rows = output if len(likely) == len(output) else output[likely]
    head = HEADS["yolov5"]
    # The best class is the best with and without the objectness, which is one factor for them all.
    best = rows[:, head : head + classes].argmax(axis=1)
    score = rows[np.arange(len(rows)), head + best] * objectness[likely]
    return _best(score, confidence, best, lambda kept: rows[kept], head + classes)


def columns(output: Array, classes: int, confidence: float) -> Detections:
    """The same of YOLOv8's columns, [4 + classes (+ coefficients), boxes]: a box's best class score is its own.

    Raises OutputError for scores, or for a column over the threshold, that are not finite.
    """
    head = HEADS["yolov8"]
    scores = output[head : head + classes]
    return _best(scores.max(axis=0), confidence, None, lambda kept: output[:, kept].T, head + classes)


def _best(
    score: Array, confidence: float, classes: Indices | None, rows: Callable[[Indices], Array], width: int
) -> Detections:
    """The best of one score per box. `classes`: the class of each, None: the best one in `rows`, which gives what the
    model said of some boxes; its mask coefficients begin at column `width`."""
    if not np.isfinite(score).all():  # a maximum is NaN where any number is
        raise OutputError(_NOT_FINITE)
    kept = np.flatnonzero(score > confidence)
    kept = kept[strongest(score[kept], MAX_CANDIDATES)]
    said = rows(kept)
    if not np.isfinite(said).all():
        raise OutputError(_NOT_FINITE)
    best = said[:, HEADS["yolov8"] : width].argmax(axis=1) if classes is None else classes[kept]
    return Detections(corners(said[:, :4]), score[kept], best, said[:, width:])


def strongest(scores: Array, count: int) -> Indices:
    """Indices of the `count` highest scores, highest first; of equal ones the first."""
    if len(scores) <= count:
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above, level = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    chosen = np.concatenate((above, level[: count - len(above)]))
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def corners(boxes: Array) -> Array:
    """Boxes given as centre x, centre y, width, height."""
    half = boxes[:, 2:] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def suppress(boxes: Array, scores: Array, classes: Indices, iou: float, limit: int) -> Indices:
    """Class-wise greedy non-maximum suppression: indices of the boxes that stay, best score first, at most `limit`.

    Boxes are taken by the block: those that one of the kept covers fall out first, then the rest is settled one by one.
    """
    order = np.argsort(-scores, kind="stable")
    crowd = _Crowd(boxes[order], classes[order], iou)
    kept = order[:0]
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        if len(kept):
            block = block[~crowd.covers(kept, block).any(axis=0)]
        kept = np.concatenate((kept, block[_greedy(crowd.covers(block, block))]))
        if len(kept) >= limit:
            break
    return order[kept[:limit]]


class _Crowd:
    """Boxes among which some cover others: they are of one class and overlap by more than `iou`."""

    def __init__(self, boxes: Array, classes: Indices, iou: float) -> None:
        self._edges = np.ascontiguousarray(boxes.T)
        # An overlap of more than `iou` of the union is one of more than this share of both areas together: no quotient,
        # so that two empty boxes have no overlap, not NaN.
        share = np.float32(iou / (1 + iou))
        self._areas = share * (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
        self._classes = classes.astype(np.int32)

    def covers(self, first: Indices, second: Indices) -> Mask:
        """Which of `first` (rows) cover which of `second` (columns)."""
        one, other = self._edges[:, first, None], self._edges[:, None, second]
        overlap = np.minimum(one[2], other[2])
        overlap -= np.maximum(one[0], other[0])
        np.maximum(overlap, 0, out=overlap)
        height = np.minimum(one[3], other[3])
        height -= np.maximum(one[1], other[1])
        overlap *= np.maximum(height, 0, out=height)
        much: Mask = overlap > self._areas[first, None] + self._areas[second]
        much &= self._classes[first, None] == self._classes[second]
        return much


def _greedy(covers: Mask) -> list[int]:
    """Of boxes, best first, those that none of the kept before them covers."""
    rows = np.packbits(covers, axis=1, bitorder="little")
    kept, gone = [], 0
    for number, row in enumerate(rows):
        if not gone >> number & 1:
            kept.append(number)
            gone |= int.from_bytes(row.tobytes(), "little")
    return kept
