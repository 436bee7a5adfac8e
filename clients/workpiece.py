"""The workpieces that the synthetic camera sees: flanges and plates, and the defects that are cut into them.

A piece is drawn as a silhouette and a relief; how it looks is left to whoever lights it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Field = NDArray[np.float32]
Points = NDArray[np.float64]

#: Defects that can be made, in the order of their class numbers.
CLASSES: Final = ("scratch", "dent", "hole", "missing")
#: Heights in the relief: what lies on the belt's level, on the part's face, and on top of a washer and a bolt.
BELT, FACE, WASHER, BOLT = 70, 130, 152, 196

_SHIFT: Final = 4


class Defect(NamedTuple):
    """One defect: its class name, its box (x1, y1, x2, y2) and its outline (N x 2), in pixels of the picture."""

    name: str
    box: tuple[float, float, float, float]
    polygon: Field


class Piece:
    """A part being made: `solid`, its silhouette; `relief`, its heights; `dents`, smooth heights on top; `truth`.

    Lengths and places are in the part's own axes, in which its radius is 1.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.radius = min(size) * rng.uniform(0.33, 0.40)
        self.centre = np.array([size[1], size[0]]) / 2 + rng.uniform(-0.05, 0.05, 2) * min(size)
        self.angle = float(rng.uniform(0, 2 * math.pi))
        self.solid: Image = np.zeros(size, np.uint8)
        self.relief: Image = np.full(size, BELT, np.uint8)
        self.dents: Field = np.zeros(size, np.float32)
        self.truth: list[Defect] = []
        self.half = (1.0, 1.0)
        self.taken: list[tuple[Points, float]] = []
        (_flange if rng.random() < 0.5 else _plate)(self, rng)

    def damage(self, name: str, rng: np.random.Generator) -> None:
        """Make a defect of class `name` and enter it in `truth`."""
        _MAKERS[name](self, rng)

    def pixels(self, points: Points) -> Points:
        """From the part's own axes to pixels."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]) * self.radius + self.centre)

    def fill(self, target: Image, outline: Points, value: int) -> None:
        """Fill an outline with smooth edges."""
        cv2.fillPoly(target, [_fixed(self.pixels(outline))], value, cv2.LINE_AA, _SHIFT)

    def body(self, outline: Points) -> None:
        """The part itself, lying on the belt, with a chamfered rim."""
        self.fill(self.solid, outline, 255)
        self.fill(self.relief, outline, (BELT + FACE) // 2)
        self.fill(self.relief, outline * 0.97, FACE)

    def bore(self, middle: Points, radius: float) -> None:
        """A machined hole, chamfered: the belt shows through it."""
        self.fill(self.relief, middle + radius * 1.15 * _ring(), (BELT + FACE) // 2)
        self.fill(self.relief, middle + radius * _ring(), BELT)
        self.fill(self.solid, middle + radius * _ring(), 0)
        self.taken.append((middle, radius * 1.15))

    def bolt(self, middle: Points, radius: float, turn: float) -> None:
        """A hexagon bolt on its washer."""
        self.fill(self.relief, middle + radius * 1.4 * _ring(), WASHER)
        self.fill(self.relief, middle + radius * _ring(6, turn), BOLT)
        self.fill(self.relief, middle + radius * 0.62 * _ring(), BOLT - 12)
        self.taken.append((middle, radius * 1.4))

    def spot(self, rng: np.random.Generator, radius: float) -> Points:
        """A place on the face for something of this radius, clear of bores, bolts and other defects if there is one."""
        best, room = np.zeros(2), -math.inf
        for _ in range(30):
            place = rng.uniform(-1, 1, 2) * (np.array(self.half) - radius - 0.05)
            inside = min(self.half) < 1 or math.hypot(*place) < 0.95 - radius
            clear = min((math.dist(place, at) - size - radius for at, size in self.taken), default=1.0)
            if inside and clear > room:
                best, room = place, clear
            if room > 0.02:
                break
        self.taken.append((best, radius))
        return best

    def found(self, name: str, covered: Image) -> None:
        """Enter a defect in the truth, from the pixels that it covers."""
        contours, _ = cv2.findContours(covered, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        if contours:
            outline = max(contours, key=len)
            x, y, width, height = cv2.boundingRect(outline)
            box = (float(x), float(y), float(x + width), float(y + height))
            self.truth.append(Defect(name, box, outline.reshape(-1, 2).astype(np.float32)))


# --- parts -----------------------------------------------------------------------------------------------------------


def _flange(piece: Piece, rng: np.random.Generator) -> None:
    """A round flange: a bore in the middle, a turned groove, a circle of bolts or bores."""
    piece.body(_ring(128))
    inner = rng.uniform(0.2, 0.3)
    groove = inner + rng.uniform(0.12, 0.2)
    piece.fill(piece.relief, groove * _ring(96), FACE - 14)
    piece.fill(piece.relief, (groove - 0.05) * _ring(96), FACE)
    piece.bore(np.zeros(2), inner)
    count = int(rng.integers(4, 9))
    _fasten(piece, rng, 0.76 * _ring(count), 0.085)


def _plate(piece: Piece, rng: np.random.Generator) -> None:
    """A rectangular plate: rounded corners, four bolts or bores, a slot or a raised pad."""
    wide = rng.uniform(0.92, 1.0)
    piece.half = (wide, wide * rng.uniform(0.6, 0.78))
    half = np.array(piece.half)
    piece.body(_rounded(half, 0.14))
    _fasten(piece, rng, (half - 0.19) * [[-1, -1], [1, -1], [1, 1], [-1, 1]], 0.085)
    inner = half * rng.uniform(0.22, 0.4, 2)
    if rng.random() < 0.5:
        piece.fill(piece.relief, _rounded(inner, 0.06), WASHER)
    else:
        piece.fill(piece.relief, _rounded(inner * [1, 0.5], 0.06), BELT)
        piece.fill(piece.solid, _rounded(inner * [1, 0.5], 0.06), 0)
    piece.taken.append((np.zeros(2), float(inner.max())))


def _fasten(piece: Piece, rng: np.random.Generator, places: Points, radius: float) -> None:
    """Bolts, or all bores: a part of one kind is made one way."""
    bolted = rng.random() < 0.6
    for place in places:
        if bolted:
            piece.bolt(place, radius, rng.uniform(0, math.pi))
        else:
            piece.bore(place, radius)


# --- defects ---------------------------------------------------------------------------------------------------------


def _scratch(piece: Piece, rng: np.random.Generator) -> None:
    """A thin, slightly bent groove."""
    length, angle = rng.uniform(0.25, 0.6), rng.uniform(0, 2 * math.pi)
    along = np.linspace(-0.5, 0.5, 9)
    bend = rng.uniform(-0.12, 0.12) * np.sin((along + 0.5) * math.pi) + rng.normal(0, 0.006, 9)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    line = np.stack([along, bend], -1) @ turn
    path = _fixed(piece.pixels(piece.spot(rng, length * 0.3) + length * line))
    width = max(1, round(piece.radius * rng.uniform(0.008, 0.016)))
    covered = np.zeros_like(piece.solid)
    cv2.polylines(covered, [path], False, 255, width + 2, cv2.LINE_8, _SHIFT)
    covered &= piece.solid
    cv2.polylines(piece.relief, [path], False, FACE - int(rng.integers(45, 80)), width, cv2.LINE_AA, _SHIFT)
    piece.found("scratch", covered)


def _dent(piece: Piece, rng: np.random.Generator) -> None:
    """A smooth hollow: only its shading shows it."""
    size = rng.uniform(0.09, 0.17)
    outline = piece.pixels(piece.spot(rng, size) + _ring(32) * size * rng.uniform(0.65, 1, 2))
    covered = np.zeros_like(piece.solid)
    cv2.fillPoly(covered, [_fixed(outline)], 255, cv2.LINE_8, _SHIFT)
    sigma = max(0.8, size * piece.radius * 0.3)
    piece.dents -= cv2.GaussianBlur(covered.astype(np.float32), (0, 0), sigma) * (rng.uniform(0.55, 0.9) * sigma / 11)
    piece.found("dent", covered & piece.solid)


def _hole(piece: Piece, rng: np.random.Generator) -> None:
    """A pore or drill slip: small, ragged, dark, where no bore belongs."""
    size = rng.uniform(0.05, 0.09)
    ragged = _ring(20) * (size * rng.uniform(0.7, 1.1, (20, 1)))
    outline = piece.spot(rng, size) + ragged
    covered = np.zeros_like(piece.solid)
    piece.fill(covered, outline, 255)
    covered &= piece.solid
    piece.fill(piece.relief, outline, BELT)
    piece.fill(piece.solid, outline, 0)
    piece.found("hole", np.where(covered > 127, np.uint8(255), np.uint8(0)))


def _missing(piece: Piece, rng: np.random.Generator) -> None:
    """A piece broken out of the rim."""
    angle = rng.uniform(0, 2 * math.pi)
    heading = np.array([math.cos(angle), math.sin(angle)])
    if min(piece.half) < 1:
        rim = heading * np.min(np.array(piece.half) / np.maximum(np.abs(heading), 1e-6))
    else:
        rim = heading
    bite = rim + _ring(14) * (rng.uniform(0.13, 0.22) * rng.uniform(0.75, 1.15, (14, 1)))
    covered = np.zeros_like(piece.solid)
    piece.fill(covered, bite, 255)
    covered = np.where((covered > 127) & (piece.solid > 127), np.uint8(255), np.uint8(0))
    piece.fill(piece.relief, bite, BELT)
    piece.fill(piece.solid, bite, 0)
    piece.found("missing", covered)


_MAKERS: Final[dict[str, Callable[[Piece, np.random.Generator], None]]] = {
    "scratch": _scratch,
    "dent": _dent,
    "hole": _hole,
    "missing": _missing,
}


# --- outlines --------------------------------------------------------------------------------------------------------


def _ring(count: int = 40, turn: float = 0.0) -> Points:
    """A regular polygon of radius 1."""
    angles = turn + np.arange(count) * (2 * math.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def _rounded(half: Points, radius: float) -> Points:
    """A rectangle with rounded corners, `half` its half sides."""
    ring = _ring(32, math.pi / 32)
    return np.sign(ring) * (np.asarray(half) - radius) + ring * radius


def _fixed(points: Points) -> NDArray[np.int32]:
    """Pixel coordinates as OpenCV's fixed-point numbers."""
    return np.round(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)
