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
#: Of so many scores one is looked at first, where the highest are sought.
_SAMPLED: Final = 8
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
    likely = _likely(scores, count)
    if len(likely):
        return likely[strongest(scores[likely], count)]
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above, level = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    chosen = np.concatenate((above, level[: count - len(above)]))
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _likely(scores: Array, count: int) -> Indices:
    """Indices of all scores from some height on, `count` at least and half of them at most; none where a sample does
    not tell that height."""
    sample = scores[::_SAMPLED]
    rank = len(sample) - 1 - 2 * count // _SAMPLED
    if rank <= 0:
        return np.arange(0)
    likely = np.flatnonzero(scores >= np.partition(sample, rank)[rank])
    return likely if count <= len(likely) <= len(scores) // 2 else likely[:0]


def corners(boxes: Array) -> Array:
    """Boxes given as centre x, centre y, width, height."""
    half = boxes[:, 2:] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def suppress(boxes: Array, scores: Array, classes: Indices, iou: float, limit: int) -> Indices:
    """Class-wise greedy non-maximum suppression: indices of the boxes that stay, best score first, at most `limit`.

    Boxes are taken by the block: those that one of the kept covers fall out first, then the rest is settled one by one.
    """
    order = np.argsort(-scores, kind="stable")
    with np.errstate(over="ignore", invalid="ignore"):  # of boxes as large as float32 goes; they cover nothing
        return order[_settled(_Crowd(boxes[order], classes[order], iou), len(order), limit)]


def _settled(crowd: _Crowd, count: int, limit: int) -> Indices:
    """Which of the `count` boxes of the crowd, best first, stay; at most `limit`."""
    kept = np.arange(0)
    for start in range(0, count, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, count))
        if len(kept):
            block = block[~crowd.covers(kept, block).any(axis=0)]
        kept = np.concatenate((kept, block[_stay(crowd.covers(block, block))]))
        if len(kept) >= limit:
            break
    return kept[:limit]


class _Crowd:
    """Boxes among which some cover others: they are of one class and overlap by more than `iou`."""

    def __init__(self, boxes: Array, classes: Indices, iou: float) -> None:
        self._edges = np.ascontiguousarray(boxes.T)
        width, height = (self._edges[2:] - self._edges[:2]).clip(0)
        # An overlap of more than `iou` of the union is one of more than this share of both areas together: no quotient,
        # so that two empty boxes have no overlap, not NaN.
        share = np.float32(iou / (1 + iou))
        self._areas = share * (width * height)
        self._classes = classes.astype(np.int32)

    def covers(self, first: Indices, second: Indices) -> Mask:
        """Which of `first` (rows) cover which of `second` (columns)."""
        # `take` and not an index: what that makes of a row's edges does not lie together, and all below takes longer.
        left, top, right, bottom = self._edges.take(first, axis=1)[:, :, None]
        other_left, other_top, other_right, other_bottom = self._edges.take(second, axis=1)
        width, height = np.minimum(right, other_right), np.minimum(bottom, other_bottom)
        spare = np.maximum(left, other_left)
        width -= spare
        height -= np.maximum(top, other_top, out=spare)
        # Where only one of them is negative so is the product; where both are, the boxes are apart.
        much: Mask = width > 0
        width *= height
        much &= width > np.add(self._areas.take(first)[:, None], self._areas.take(second), out=spare)
        much &= self._classes.take(first)[:, None] == self._classes.take(second)
        return much


def _stay(covers: Mask) -> Mask:
    """Of boxes, best first, those that none of the kept before them covers; `covers` is overwritten."""
    covers.flat[:: len(covers) + 1] = False  # every box covers itself
    gone = np.zeros(len(covers), bool)
    for number in np.flatnonzero(covers.any(axis=1)).tolist():
        if not gone[number]:
            gone |= covers[number]  # none of the kept is among them: it would cover this one
    return ~gone
