"""Where a frame lies in a model's input, and the way back: letterbox, stretch or crop; pure numpy and OpenCV.

Coordinates are continuous (a pixel's left edge is its index), so a box of a whole frame is [0, 0, width, height].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.image import Picture

Array: TypeAlias = NDArray[np.float32]
Fit: TypeAlias = Literal["letterbox", "stretch", "crop"]

#: Grey level around a letterboxed frame, as YOLO models are trained with.
PAD: Final = 114


@dataclass(frozen=True, slots=True)
class Scaling:
    """Grey levels 0..255 to what a model takes: (level - mean) / std, for red, green, blue. YOLO: mean 0, std 255."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)

    def table(self) -> Array:
        """The 256 values of each channel, float32 [3, 256]."""
        levels = np.arange(256, dtype=np.float64)
        table: Array = ((levels - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]).astype(np.float32)
        return table


@dataclass(frozen=True, slots=True)
class Placement:
    """The part of a frame that a model sees, and its place in the input; sizes are (height, width) in pixels.

    `source` and `target` are (top, left, height, width): that rectangle of the frame is resized into that rectangle
    of the input; `antialias`: by averaging where it shrinks.
    """

    frame: tuple[int, int]
    size: tuple[int, int]
    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]
    antialias: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per frame pixel: (y, x)."""
        return self.target[2] / self.source[2], self.target[3] / self.source[3]

    def to_frame(self, boxes: Array) -> Array:
        """Boxes [n, 4] (x1, y1, x2, y2) of the input, in pixels of the frame and inside it."""
        scale, offset = self._affine()
        limits = np.array([*self.frame[::-1]] * 2, np.float32)
        return np.clip((boxes - offset) / scale, 0, limits).astype(np.float32)

    def to_input(self, boxes: Array) -> Array:
        """The inverse of `to_frame`, for boxes inside the frame."""
        scale, offset = self._affine()
        return (boxes * scale + offset).astype(np.float32)

    def _affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        (sy, sx), (top, left, _, _), (y, x, _, _) = self.scale, self.target, self.source
        offset = (left - x * sx, top - y * sy)
        return np.array([sx, sy, sx, sy]), np.array([*offset, *offset])


def place(frame: tuple[int, int], size: tuple[int, int], fit: Fit, *, antialias: bool = False) -> Placement:
    """The placement of a frame in an input of `size`; both (height, width), at least 1x1.

    `antialias`: for classifiers, which are trained on antialiased pictures; detectors are on plain bilinear ones.
    """
    whole = (0, 0, *frame)
    if fit == "letterbox":
        return Placement(frame, size, whole, _letterbox(frame, size))
    source = whole if fit == "stretch" else _crop(frame, size)
    return Placement(frame, size, source, (0, 0, *size), antialias)


def fill(picture: Picture, placement: Placement, table: Array, out: Array) -> None:
    """Write the picture into `out`, float32 [3, height, width] in RGB, through `table` (see Scaling.table)."""
    top, left, height, width = placement.target
    _pad(out, placement, table)
    planes = _planes(_resized(picture, placement))
    for channel in range(3):
        cv2.LUT(planes[channel], table[channel], out[channel, top : top + height, left : left + width])


def _letterbox(frame: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The centred rectangle of a frame that keeps its proportions; rounding as Ultralytics does it."""
    ratio = min(size[0] / frame[0], size[1] / frame[1])
    height, width = (max(1, min(round(length * ratio), room)) for length, room in zip(frame, size, strict=True))
    top = max(0, round((size[0] - height) / 2 - 0.1))
    left = max(0, round((size[1] - width) / 2 - 0.1))
    return top, left, height, width


def _crop(frame: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred rectangle of a frame that has the input's proportions."""
    ratio = min(frame[0] / size[0], frame[1] / size[1])
    height, width = (max(1, min(round(length * ratio), room)) for length, room in zip(size, frame, strict=True))
    return (frame[0] - height) // 2, (frame[1] - width) // 2, height, width


def _resized(picture: Picture, placement: Placement) -> Picture:
    top, left, height, width = placement.source
    part = picture[top : top + height, left : left + width]
    if placement.target[2:] == (height, width):
        return part
    shrinks = min(placement.scale) < 1
    how = cv2.INTER_AREA if placement.antialias and shrinks else cv2.INTER_LINEAR
    return cv2.resize(part, placement.target[3:1:-1], interpolation=how).view(np.uint8)


def _planes(picture: Picture) -> tuple[Picture, Picture, Picture]:
    """Red, green and blue, each contiguous."""
    if picture.ndim == 2:
        grey = np.ascontiguousarray(picture)
        return grey, grey, grey
    blue, green, red = cv2.split(picture)
    return red.view(np.uint8), green.view(np.uint8), blue.view(np.uint8)


def _pad(out: Array, placement: Placement, table: Array) -> None:
    top, left, height, width = placement.target
    for plane, level in zip(out, table[:, PAD], strict=True):
        plane[:top] = level
        plane[top + height :] = level
        plane[top : top + height, :left] = level
        plane[top : top + height, left + width :] = level
