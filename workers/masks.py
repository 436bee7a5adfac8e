"""Segmentation: mask coefficients and prototypes to one mask per detection, and masks to polygons in frame pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.placement import Array, Placement

Mask: TypeAlias = NDArray[np.uint8]

#: Largest raster of one mask in pixels: prototypes have 160 x 160, so more would only cost time.
RASTER: Final = 1 << 18
#: How far a simplified outline may lie from the mask's, in raster pixels; it keeps results an order smaller.
TOLERANCE: Final = 0.7
#: Prototype pixels around a box that take part in the interpolation at its edges.
_MARGIN: Final = 1


@dataclass(frozen=True, slots=True)
class Raster:
    """A grid over a part of the frame: pixel (i, j) has its centre at `corner` + ((i, j) + 0.5) x `step`.

    `corner` and `step` are (x, y) in pixels of the frame.
    """

    corner: tuple[float, float]
    step: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Axis:
    """A box, `low` to `high`, along one axis of the prototypes: their coordinate is frame's times scale plus offset."""

    scale: float
    offset: float
    low: float
    high: float
    crop: slice

    def inside(self, fine: int) -> slice:
        """The pixels of the crop, `fine` times enlarged, whose centres lie in the box; one at least."""
        start = math.ceil((self.low - self.crop.start) * fine - 0.5)
        stop = math.ceil((self.high - self.crop.start) * fine - 0.5)
        start = min(start, (self.crop.stop - self.crop.start) * fine - 1)
        return slice(start, max(start + 1, stop))

    def to_frame(self, place: float) -> float:
        """Frame coordinate of a place in the crop, in prototype pixels."""
        return float(self.crop.start + place - self.offset) / self.scale


def mask(coefficients: Array, prototypes: Array, box: Array, placement: Placement) -> tuple[Mask, Raster]:
    """One detection's mask, 0 or 1: coefficients [c] x prototypes [c, h, w] over 0, inside `box` (frame pixels)."""
    x, y = (_axis(axis, prototypes, box, placement) for axis in (0, 1))
    fine = _fineness(x, y)
    # Not by BLAS: its threads would spin beside the engine's.
    logits = np.einsum("c,chw->hw", coefficients, prototypes[:, y.crop, x.crop])
    smooth = cv2.resize(logits, None, fx=fine, fy=fine, interpolation=cv2.INTER_LINEAR)
    columns, rows = x.inside(fine), y.inside(fine)
    corner = x.to_frame(columns.start / fine), y.to_frame(rows.start / fine)
    raster = Raster(corner, (1 / (fine * x.scale), 1 / (fine * y.scale)))
    return (smooth[rows, columns] > 0).view(np.uint8), raster


def polygons(inside: Mask, raster: Raster) -> list[list[int]]:
    """Outlines of a mask as flat x, y lists in frame pixels (pixel centres), outer ones and holes (even-odd)."""
    outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    simple = (cv2.approxPolyDP(outline, TOLERANCE, True)[:, 0] for outline in outlines)
    return [_points(outline, raster) for outline in simple if len(outline) >= 3]


def area(inside: Mask, raster: Raster) -> float:
    """Area of a mask in square pixels of the frame."""
    return float(cv2.countNonZero(inside)) * raster.step[0] * raster.step[1]


def _axis(axis: int, prototypes: Array, box: Array, placement: Placement) -> _Axis:
    """The box along x (0) or y (1)."""
    length = prototypes.shape[2 - axis]
    shrink = length / placement.size[1 - axis]
    scale = placement.scale[1 - axis] * shrink
    offset = placement.target[1 - axis] * shrink - placement.source[1 - axis] * scale
    low, high = (float(edge) * scale + offset for edge in box[axis::2])
    first = min(max(0, math.floor(low) - _MARGIN), length - 1)
    last = min(length, max(first + 1, math.ceil(high) + _MARGIN))
    return _Axis(scale, offset, low, high, slice(first, last))


def _fineness(x: _Axis, y: _Axis) -> int:
    """Raster pixels per prototype pixel: about the frame's, fewer where the raster would exceed RASTER."""
    wanted = round(1 / max(x.scale, y.scale))
    most = math.isqrt(int(RASTER / max(1.0, (x.high - x.low) * (y.high - y.low))))
    return max(1, min(wanted, most))


def _points(outline: NDArray[Any], raster: Raster) -> list[int]:
    centres = np.array(raster.corner) + (outline + 0.5) * np.array(raster.step)
    points: list[int] = np.rint(centres - 0.5).astype(int).ravel().tolist()
    return points
