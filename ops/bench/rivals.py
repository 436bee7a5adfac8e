"""Non-maximum suppression of the workers beside what else does it: OpenCV's batched one, and a loop over classes.

All take the same boxes, keep the best `MAX_CANDIDATES` before and `MAX_DETECTIONS` after, and must keep the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
from msgspec import Struct

from broker.wire import MAX_DETECTIONS
from workers import yolo
from workers.yolo import Array, Indices

#: Candidates of a YOLOv5 at 640x640, all of them over a threshold as low as this.
CANDIDATES: Final = 25_200
THRESHOLD: Final = 0.001
IOU: Final = 0.45
#: What the others are to take, in times of ours.
TARGET: Final = 3.0
_SIDE: Final = 640
_OBJECTS: Final = 40


class Scene(Struct, frozen=True):
    """Boxes as x1, y1, x2, y2, their scores and classes."""

    boxes: Array
    scores: Array
    classes: Indices


class Rivalry(Struct, frozen=True, kw_only=True):
    """Milliseconds of each, round by round; `same`: all kept the same boxes."""

    classes: int
    kept: int
    same: bool
    milliseconds: dict[str, list[float]]

    def times(self, rival: str) -> float:
        """How many times ours it takes: the median of the rounds."""
        ours, theirs = (np.array(self.milliseconds[name]) for name in ("workers", rival))
        return float(np.median(theirs / ours))


def make_scene(classes: int, seed: int = 0) -> Scene:
    """Half of the boxes crowd around objects, the others lie anywhere; no two scores are equal."""
    rng = np.random.default_rng((seed, classes))
    owner = rng.integers(0, _OBJECTS, CANDIDATES)
    centres = rng.uniform(20, _SIDE - 20, (_OBJECTS, 2))[owner] + rng.normal(0, 6, (CANDIDATES, 2))
    sides = rng.uniform(16, 136, (_OBJECTS, 2))[owner] * np.exp(rng.normal(0, 0.15, (CANDIDATES, 2)))
    labels = rng.integers(0, classes, _OBJECTS)[owner]
    stray = rng.random(CANDIDATES) < 0.5
    centres[stray] = rng.uniform(0, _SIDE, (stray.sum(), 2))
    labels[stray] = rng.integers(0, classes, stray.sum())
    scores = THRESHOLD + (1 - THRESHOLD) * (rng.permutation(CANDIDATES) + 1) / (CANDIDATES + 1)
    # Whole pixels: float and double then agree on every overlap.
    boxes = np.rint(np.concatenate((centres - sides / 2, centres + sides / 2), axis=1)).astype(np.float32)
    return Scene(boxes, scores.astype(np.float32), labels)


def by_workers(scene: Scene) -> Indices:
    """What every job of a worker goes through."""
    chosen = yolo.strongest(scene.scores, yolo.MAX_CANDIDATES)
    boxes, scores, classes = scene.boxes[chosen], scene.scores[chosen], scene.classes[chosen]
    return chosen[yolo.suppress(boxes, scores, classes, IOU, MAX_DETECTIONS)]


def by_opencv(scene: Scene) -> Indices:
    """`cv2.dnn.NMSBoxesBatched`."""
    corners: Any = _corner_and_sides(scene.boxes)
    scores: Any = scene.scores  # typed as lists, but arrays are what it reads fastest
    classes: Any = scene.classes.astype(np.int32)
    kept = cv2.dnn.NMSBoxesBatched(corners, scores, classes, THRESHOLD, IOU, 1.0, yolo.MAX_CANDIDATES)
    return np.array(kept, np.intp)[:MAX_DETECTIONS]


def by_class(scene: Scene) -> Indices:
    """`cv2.dnn.NMSBoxes` for each class of the best candidates."""
    chosen = np.argsort(-scene.scores, kind="stable")[: yolo.MAX_CANDIDATES]
    corners: Any = _corner_and_sides(scene.boxes[chosen])
    scores: Any = scene.scores[chosen]
    classes, kept = scene.classes[chosen], []
    for number in np.unique(classes):
        here = np.flatnonzero(classes == number)
        kept.append(here[np.array(cv2.dnn.NMSBoxes(corners[here], scores[here], THRESHOLD, IOU), np.intp)])
    every = np.concatenate(kept)
    return chosen[every[np.argsort(-scores[every], kind="stable")]][:MAX_DETECTIONS]


#: Ours first.
RIVALS: Final[dict[str, Callable[[Scene], Any]]] = {
    "workers": by_workers,
    "NMSBoxesBatched": by_opencv,
    "loop over classes": by_class,
}


def compete(classes: int, rounds: int) -> Rivalry:
    """All in turn, `rounds` times."""
    scene = make_scene(classes)
    kept = [rival(scene).tolist() for rival in RIVALS.values()]
    milliseconds: dict[str, list[float]] = {name: [] for name in RIVALS}
    for _ in range(rounds):
        for name, rival in RIVALS.items():
            began = time.perf_counter()
            rival(scene)
            milliseconds[name].append(1000 * (time.perf_counter() - began))
    same = all(one == kept[0] for one in kept)
    return Rivalry(classes=classes, kept=len(kept[0]), same=same, milliseconds=milliseconds)


def _corner_and_sides(boxes: Array) -> Array:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
