"""A workpiece being made: silhouette, relief and marks, and the truth about what was done to it.

A piece is drawn as heights; how it looks is left to whoever lights it. Shapes are in `clients.shapes`, defects in
`clients.defects`.
"""

from __future__ import annotations

import math
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
#: How near to an edge a defect of the face may come, in radii of the part.
MARGIN: Final = 0.05

_SHIFT: Final = 4


class Defect(NamedTuple):
    """One defect, in pixels of the picture: its class name, its box (x1, y1, x2, y2), its outline (N x 2) and the
    pixels inside it; `contrast`: the root mean square of what it changes there, in grey levels, noise aside."""

    name: str
    box: tuple[float, float, float, float]
    polygon: Field
    area: float = 0.0
    contrast: float = 0.0


class Surface(NamedTuple):
    """What the lamp falls on: `solid`, the silhouette; `relief`, heights; `dents`, smooth heights on top; `marks`, grey
    levels that the surface is brighter by."""

    solid: Image
    relief: Image
    dents: Field
    marks: Field

    def cut(self, area: tuple[slice, slice]) -> Surface:
        """Views of a part of it."""
        return Surface(self.solid[area], self.relief[area], self.dents[area], self.marks[area])

    def copy(self) -> Surface:
        return Surface(self.solid.copy(), self.relief.copy(), self.dents.copy(), self.marks.copy())


class Piece:
    """A part on the belt: its `surface`, its `outline`, and in `truth` its defects.

    Lengths and places are in the part's own axes, in which its radius is 1.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.size = size
        self.radius = min(size) * rng.uniform(0.33, 0.40)
        self.centre = np.array([size[1], size[0]]) / 2 + rng.uniform(-0.05, 0.05, 2) * min(size)
        self.angle = float(rng.uniform(0, 2 * math.pi))
        blank, flat = np.zeros(size, np.uint8), np.zeros(size, np.float32)
        self.surface = Surface(blank, np.full(size, BELT, np.uint8), flat, flat.copy())
        self.outline: Points = ring()
        self.truth: list[Defect] = []
        self._fasteners: Image = np.zeros(size, np.uint8)
        self._harmed: Image = np.zeros(size, np.uint8)
        self._busy: Image | None = None

    def pixels(self, points: Points) -> Points:
        """From the part's own axes to pixels."""
        return turned(points, self.angle) * self.radius + self.centre

    def fill(self, target: Image, outline: Points, value: int) -> None:
        """Fill an outline with smooth edges."""
        cv2.fillPoly(target, [fixed(self.pixels(outline))], value, cv2.LINE_AA, _SHIFT)

    def covered(self, outline: Points) -> Image:
        """The pixels inside an outline, 0 or 255."""
        inside = np.zeros(self.size, np.uint8)
        cv2.fillPoly(inside, [fixed(self.pixels(outline))], 255, cv2.LINE_8, _SHIFT)
        return inside

    def stroke(self, target: Image, path: Points, width: int, value: int) -> None:
        """Draw an open line, `width` in pixels."""
        cv2.polylines(target, [fixed(self.pixels(path))], False, value, width, cv2.LINE_AA, _SHIFT)

    # --- making it ---------------------------------------------------------------------------------------------------

    def body(self, outline: Points) -> None:
        """The part itself, lying on the belt, with a chamfered rim."""
        self.outline = outline
        self.fill(self.surface.solid, outline, 255)
        self.fill(self.surface.relief, outline, (BELT + FACE) // 2)
        self.fill(self.surface.relief, outline * 0.97, FACE)

    def raise_to(self, height: int, outline: Points) -> None:
        """A pad (over FACE), a pocket or a groove (under it)."""
        self.fill(self.surface.relief, outline, height)

    def bore(self, outline: Points, middle: Points) -> None:
        """A machined opening, chamfered: the belt shows through it. `outline` is around 0."""
        self.fill(self.surface.relief, middle + 1.15 * outline, (BELT + FACE) // 2)
        self.fill(self.surface.relief, middle + outline, BELT)
        self.fill(self.surface.solid, middle + outline, 0)
        self._occupy(middle + 1.15 * outline)

    def stack(self, middle: Points, layers: list[tuple[Points, int]]) -> None:
        """A fastener: outlines around 0, the widest first, and their heights."""
        for outline, height in layers:
            self.fill(self.surface.relief, middle + outline, height)
        self._occupy(middle + 1.2 * layers[0][0])

    def _occupy(self, outline: Points) -> None:
        self.fill(self._fasteners, outline, 255)
        self._busy = None

    # --- damaging it -------------------------------------------------------------------------------------------------

    def free(self, covered: Image) -> bool:
        """Whether so much lies on the bare face: clear of edges, bores, fasteners and other defects."""
        return cv2.countNonZero(cv2.bitwise_and(covered, self._blocked())) == 0

    def apart(self, covered: Image) -> bool:
        """Whether so much lies clear of other defects."""
        return not self.truth or cv2.countNonZero(cv2.bitwise_and(covered, self._harmed)) == 0

    def found(self, name: str, covered: Image) -> None:
        """Enter a defect in the truth, from the pixels that it covers, and keep others away from it."""
        contours, _ = cv2.findContours(covered, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        if not contours:
            return
        outline = max(contours, key=cv2.contourArea)
        x, y, width, height = cv2.boundingRect(outline)
        box = (float(x), float(y), float(x + width), float(y + height))
        polygon = outline.reshape(-1, 2).astype(np.float32)
        self.truth.append(Defect(name, box, polygon, float(cv2.countNonZero(covered))))
        around = np.ones((2 * self._pixels(MARGIN) + 1,) * 2, np.uint8)
        self._harmed |= cv2.dilate(covered, around).view(np.uint8)
        self._busy = self._blocked() | self._harmed

    def _blocked(self) -> Image:
        if self._busy is None:
            around = np.ones((2 * self._pixels(MARGIN) + 1,) * 2, np.uint8)
            face = cv2.erode(self.surface.solid, around, borderValue=0)
            bare = cv2.threshold(face, 254, 255, cv2.THRESH_BINARY)[1]
            self._busy = cv2.bitwise_or(cv2.bitwise_not(bare), self._fasteners).view(np.uint8)
        return self._busy

    def _pixels(self, length: float) -> int:
        return max(1, round(length * self.radius))


# --- outlines --------------------------------------------------------------------------------------------------------


def ring(count: int = 40, turn: float = 0.0) -> Points:
    """A regular polygon of radius 1."""
    angles = turn + np.arange(count) * (2 * math.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def rounded(half: Points, radius: float) -> Points:
    """A rectangle with rounded corners, `half` its half sides."""
    corners = ring(32, math.pi / 32)
    return np.sign(corners) * (np.asarray(half) - radius) + corners * radius


def softened(corners: Points, radius: float) -> Points:
    """A polygon whose corners are rounded off, beginning `radius` before them."""
    steps = np.linspace(0, 1, 9)[:, None]
    points = []
    for before, corner, after in zip(np.roll(corners, 1, 0), corners, np.roll(corners, -1, 0), strict=True):
        start = corner + (before - corner) * min(0.5, radius / math.dist(before, corner))
        end = corner + (after - corner) * min(0.5, radius / math.dist(after, corner))
        points.append((1 - steps) ** 2 * start + 2 * steps * (1 - steps) * corner + steps**2 * end)
    return np.concatenate(points)


def turned(outline: Points, angle: float) -> Points:
    """An outline around 0 turned by so many radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(outline @ np.array([[cos, sin], [-sin, cos]]))


def fixed(points: Points) -> NDArray[np.int32]:
    """Pixel coordinates as OpenCV's fixed-point numbers."""
    return np.round(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)
