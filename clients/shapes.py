"""The shapes of the synthetic camera's parts. Those of the held-out world are never drawn for training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np

from clients.features import middle, scattered
from clients.workpiece import BELT, BOLT, FACE, WASHER, Piece, Points, ring, rounded, softened, turned

#: Which parts, textures and lamps are drawn: those to train with, or those that no training sees.
World: TypeAlias = Literal["train", "held-out"]
Shape: TypeAlias = Callable[[Piece, np.random.Generator, World], None]


def make(rng: np.random.Generator, size: tuple[int, int], world: World) -> Piece:
    """A sound part of that world in a picture of `size` (height, width)."""
    piece = Piece(rng, size)
    shapes = SHAPES[world]
    shapes[int(rng.integers(len(shapes)))](piece, rng, world)
    return piece


# --- training --------------------------------------------------------------------------------------------------------


def _flange(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """Round: a bore in the middle, a turned groove, a circle of fasteners."""
    piece.body(ring(128))
    inner = rng.uniform(0.18, 0.3)
    groove = inner + rng.uniform(0.12, 0.2)
    piece.raise_to(FACE - int(rng.integers(8, 20)), groove * ring(96))
    piece.raise_to(FACE, (groove - 0.05) * ring(96))
    piece.bore(inner * ring(), np.zeros(2))
    _fasten(piece, rng, world, 0.76 * ring(int(rng.integers(3, 9))))


def _plate(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """Rectangular, four fasteners, a middle."""
    wide = rng.uniform(0.86, 0.94)
    half = np.array((wide, wide * rng.uniform(0.55, 0.8)))
    piece.body(rounded(half, rng.uniform(0.06, 0.2)))
    _fasten(piece, rng, world, (half - 0.19) * [[-1, -1], [1, -1], [1, 1], [-1, 1]])
    scattered(piece, rng, half * 0.7)


def _polygon(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """Five, six or eight sides, a fastener in every corner or in every second one."""
    sides = int(rng.choice((5, 6, 8)))
    piece.body(softened(ring(sides), rng.uniform(0.05, 0.25)))
    step = 2 if sides > 5 and rng.random() < 0.5 else 1
    _fasten(piece, rng, world, 0.72 * ring(sides)[::step])
    scattered(piece, rng, np.array((0.5, 0.5)))


def _link(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """Long, with round ends and a bore in each."""
    end = rng.uniform(0.34, 0.45)
    piece.body(rounded(np.array((1.0, end)), end - 1e-3))
    bore = end * rng.uniform(0.35, 0.55)
    for side in (-1, 1):
        piece.bore(bore * ring(), np.array((side * (1 - end), 0.0)))
    scattered(piece, rng, np.array((0.4, end * 0.4)))


def _bracket(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """An angle with two arms and three fasteners."""
    arm = rng.uniform(0.55, 0.7)
    low, high = -0.72, 0.72
    inner = low + arm
    corners = [[low, low], [high, low], [high, inner], [inner, inner], [inner, high], [low, high]]
    piece.body(softened(np.array(corners), rng.uniform(0.05, 0.15)))
    mid = low + arm / 2
    _fasten(piece, rng, world, np.array([[mid, mid], [high - 0.2, mid], [mid, high - 0.2]]))
    scattered(piece, rng, np.array((0.6, 0.6)))


def _trapezoid(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """Four sides, no two alike, the corners from sharp to wide, a fastener in each."""
    corners = ring(4, math.pi / 4) * rng.uniform(0.75, 1.15, (4, 2))
    piece.body(softened(corners, rng.uniform(0.03, 0.5)))
    _fasten(piece, rng, world, 0.6 * corners)
    scattered(piece, rng, np.array((0.4, 0.4)))


def _flattened(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """A disc with two flat sides across from each other."""
    disc = ring(128)
    flat = rng.uniform(0.45, 0.85)
    disc[:, 1] = np.clip(disc[:, 1], -flat, flat)
    piece.body(disc)
    _fasten(piece, rng, world, np.array((0.76, 0.0)) * [[1], [-1]] if rng.random() < 0.5 else 0.4 * flat * ring(4))
    scattered(piece, rng, np.array((0.6, 0.3)))


def _cam(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """A large round end and a small one, straight sides between them."""
    small = rng.uniform(0.15, 0.4)
    ends = np.concatenate((0.68 * ring(64) - [0.32, 0], small * ring(64) + [1 - small, 0]))
    piece.body(cv2.convexHull(ends.astype(np.float32)).reshape(-1, 2).astype(np.float64))
    _fasten(piece, rng, world, np.array([[1 - max(small, 0.25), 0.0], [-0.32, 0.42], [-0.32, -0.42], [-0.74, 0.0]]))
    scattered(piece, rng, np.array((0.6, 0.3)))


def _convex(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """At least four corners anywhere around, from sharp to wide, fasteners in some of them."""
    count = int(rng.integers(4, 8))
    angles = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * (2 * math.pi / count)
    corners = rng.uniform(0.72, 1.12, (count, 1)) * np.stack([np.cos(angles), np.sin(angles)], -1)
    hull = cv2.convexHull(corners.astype(np.float32)).reshape(-1, 2).astype(np.float64)
    corners = hull if len(hull) > 3 else ring(5)
    piece.body(softened(corners, rng.uniform(0.03, 0.5)))
    _fasten(piece, rng, world, 0.58 * corners[rng.random(len(corners)) < 0.7])
    scattered(piece, rng, np.array((0.4, 0.4)))


def _truncated(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """Six sides, long and short ones by turns, as of a triangle whose corners were cut off."""
    short = rng.uniform(0.27, 0.42)
    angles = (np.arange(6) // 2) * (2 * math.pi / 3) + short * np.array((-1, 1) * 3)
    corners = np.stack([np.cos(angles), np.sin(angles)], -1)
    piece.body(softened(corners, rng.uniform(0.03, 0.12)))
    _fasten(piece, rng, world, 0.6 * ring(3) if rng.random() < 0.6 else 0.66 * corners)
    scattered(piece, rng, np.array((0.4, 0.4)))


def _lobed(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """Round, with two to six bulges, a fastener in each or in every hollow."""
    lobes = int(rng.integers(2, 7))
    depth = rng.uniform(0.04, 0.45 / lobes)
    angles = np.arange(160) * (2 * math.pi / 160)
    radius = 1 - depth + depth * np.cos(lobes * angles)
    piece.body(np.stack([np.cos(angles), np.sin(angles)], -1) * radius[:, None])
    at = (0.0, math.pi / lobes)[int(rng.integers(2))]
    _fasten(piece, rng, world, (0.74 - (2 * depth if at else 0)) * ring(lobes, at))
    scattered(piece, rng, np.array((0.45, 0.45)))


# --- held out --------------------------------------------------------------------------------------------------------


def _triangle(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """Three sides, rounded wide, a fastener in every corner."""
    piece.body(softened(1.08 * ring(3), rng.uniform(0.3, 0.5)))
    _fasten(piece, rng, world, 0.62 * ring(3))
    middle(piece, rng, np.array((0.45, 0.45)))


def _oval(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """A flange with two ears: a wide bore in the middle, a fastener at each end."""
    waist = rng.uniform(0.6, 0.72)
    piece.body(softened(np.array([[-1.12, 0], [0, -waist * 1.2], [1.12, 0], [0, waist * 1.2]]), 0.42))
    piece.bore(rng.uniform(0.2, 0.3) * ring(), np.zeros(2))
    _fasten(piece, rng, world, np.array([[-0.68, 0.0], [0.68, 0.0]]))


def _half_moon(piece: Piece, rng: np.random.Generator, world: World) -> None:
    """A disc with one flat side, five fasteners around the rest."""
    flat = rng.uniform(0.5, 0.75)
    disc = ring(128)
    disc[:, 1] = np.minimum(disc[:, 1], flat)
    piece.body(disc)
    _fasten(piece, rng, world, 0.74 * ring(8, -math.pi)[:5])
    middle(piece, rng, np.array((0.5, 0.5)))


SHAPES: Final[dict[World, tuple[Shape, ...]]] = {
    "train": (
        _flange, _plate, _polygon, _link, _bracket, _trapezoid, _flattened, _cam, _convex, _convex, _truncated, _lobed,
    ),
    "held-out": (_triangle, _oval, _half_moon),
}  # fmt: skip


# --- what a shape has on it ------------------------------------------------------------------------------------------


def _fasten(piece: Piece, rng: np.random.Generator, world: World, places: Points) -> None:
    """Bores or fasteners of one kind: a part is made one way."""
    radius = rng.uniform(0.07, 0.095)
    kind = rng.choice(FASTENERS[world]) if rng.random() < 0.7 else ""
    for place in places:
        if kind:
            piece.stack(place, _fastener(kind, radius, rng.uniform(0, math.pi)))
        else:
            piece.bore(radius * ring(), place)


FASTENERS: Final[dict[World, tuple[str, ...]]] = {
    "train": ("hexagon", "rivet", "slotted", "eyelet", "square", "crosshead"),
    "held-out": ("socket", "socket on washer"),
}


def _fastener(kind: str, radius: float, turn: float) -> list[tuple[Points, int]]:
    """Outlines around 0, the widest first, and their heights."""
    disc, six = radius * ring(), radius * ring(6, turn)
    socket = [(disc * 1.1, BOLT), (six * 0.6, BELT + 30)]
    slot = rounded(np.array((1.05, 0.2)) * radius, 0.1 * radius)
    return {
        "hexagon": [(disc * 1.4, WASHER), (six, BOLT), (disc * 0.62, BOLT - 12)],
        "rivet": [(disc, WASHER), (disc * 0.75, WASHER + 16), (disc * 0.45, WASHER + 24)],
        "slotted": [(disc * 1.1, BOLT - 10), (turned(slot, turn), FACE)],
        "square": [(disc * 1.45, WASHER), (radius * ring(4, turn), BOLT)],
        "crosshead": [
            (disc * 1.1, BOLT - 6),
            (turned(slot * 0.8, turn), FACE),
            (turned(slot * 0.8, turn + math.pi / 2), FACE),
        ],
        "eyelet": [(disc * 1.15, WASHER + 20), (disc * 0.55, BELT + 20)],
        "socket": socket,
        "socket on washer": [(disc * 1.5, WASHER), *socket],
    }[kind]
