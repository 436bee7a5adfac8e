"""The defects of the synthetic camera's parts: scratches, dents, holes and pieces broken out of the rim."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from clients.workpiece import BELT, FACE, Image, Piece, Points, ring

#: Places that are tried for a defect, until one is free.
TRIES: Final = 40
#: How small the last one tried is, compared with the first: narrow parts have no room for large defects.
_SHRUNK: Final = 0.55
#: Least area of a piece broken out, in squared radii of the part.
_LEAST_BITE: Final = 0.015


def damage(piece: Piece, name: str, rng: np.random.Generator) -> None:
    """Make a defect of class `name` and enter it in the piece's truth; where the face has no room for it, a piece is
    broken out instead."""
    if not _MAKERS[name](piece, rng):
        _missing(piece, rng)


def _scratch(piece: Piece, rng: np.random.Generator) -> bool:
    """A thin, bent groove, brighter or darker than the face."""
    length, angle = rng.uniform(0.25, 0.6), rng.uniform(0, 2 * math.pi)
    along = np.linspace(-0.5, 0.5, 9)
    bend = rng.choice((-1, 1)) * rng.uniform(0.12, 0.3) * np.sin((along + 0.5) * math.pi) + rng.normal(0, 0.008, 9)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    width = max(1, round(piece.radius * rng.uniform(0.014, 0.026)))

    def cover(path: Points) -> Image:
        covered = np.zeros(piece.size, np.uint8)
        piece.stroke(covered, path, width + 2, 255)
        return cv2.threshold(covered, 127, 255, cv2.THRESH_BINARY)[1].view(np.uint8)

    path = _place(piece, rng, length * np.stack([along, bend], -1) @ turn, cover)
    if path is None:
        return False
    piece.stroke(piece.surface.relief, path, width, FACE - int(rng.integers(12, 55)))
    groove = np.zeros(piece.size, np.uint8)
    piece.stroke(groove, path, width, 255)
    level = rng.choice((-1, 1)) * rng.uniform(8, 40) / 255
    piece.surface.marks[:] += groove * np.float32(level)
    piece.found("scratch", cover(path))
    return True


def _dent(piece: Piece, rng: np.random.Generator) -> bool:
    """A smooth hollow: only its shading shows it."""
    outline = _place(piece, rng, ring(32) * rng.uniform(0.08, 0.18) * rng.uniform(0.65, 1, 2), piece.covered)
    if outline is None:
        return False
    covered = piece.covered(outline)
    sigma = max(0.8, float(np.ptp(outline, axis=0).max()) * piece.radius * 0.15)
    piece.surface.dents[:] -= cv2.GaussianBlur(covered.astype(np.float32), (0, 0), sigma) * (
        rng.uniform(0.3, 0.95) * sigma / 11
    )
    piece.found("dent", covered)
    return True


def _hole(piece: Piece, rng: np.random.Generator) -> bool:
    """A pore or a drill's slip, ragged, where no bore belongs; the belt shows through it, or a dark ground."""
    size = rng.uniform(0.04, 0.09)
    outline = _place(piece, rng, ring(20) * (size * rng.uniform(0.7, 1.1, (20, 1))), piece.covered)
    if outline is None:
        return False
    covered = piece.covered(outline)
    if rng.random() < 0.5:
        piece.fill(piece.surface.relief, outline, BELT)
        piece.fill(piece.surface.solid, outline, 0)
    else:
        piece.fill(piece.surface.relief, outline, FACE - int(rng.integers(20, 50)))
        ground = np.zeros(piece.size, np.uint8)
        piece.fill(ground, outline, 255)
        piece.surface.marks[:] -= ground * np.float32(rng.uniform(20, 75) / 255)
    piece.found("hole", covered)
    return True


def _missing(piece: Piece, rng: np.random.Generator) -> bool:
    """A piece broken out of the rim."""
    least = _LEAST_BITE * piece.radius**2
    for _ in range(TRIES):
        index = int(rng.integers(len(piece.outline)))
        share = rng.random()
        rim = piece.outline[index] * (1 - share) + piece.outline[index - 1] * share
        bite = rim + ring(14) * (rng.uniform(0.13, 0.22) * rng.uniform(0.75, 1.15, (14, 1)))
        covered = np.where(piece.surface.solid > 127, piece.covered(bite), np.uint8(0))
        whole = cv2.countNonZero(covered) >= least and cv2.connectedComponents(covered)[0] == 2
        if whole and piece.apart(covered):
            break
    piece.fill(piece.surface.relief, bite, BELT)
    piece.fill(piece.surface.solid, bite, 0)
    piece.found("missing", covered)
    return True


def _place(piece: Piece, rng: np.random.Generator, outline: Points, cover: Callable[[Points], Image]) -> Points | None:
    """The outline (around 0) moved to, and shrunk until it fits, a free place on the face; None: there is none."""
    for scale in np.linspace(1, _SHRUNK, TRIES):
        moved = outline * scale + rng.uniform(-0.92, 0.92, 2)
        if piece.free(cover(moved)):
            return np.asarray(moved)
    return None


_MAKERS: Final[dict[str, Callable[[Piece, np.random.Generator], bool]]] = {
    "scratch": _scratch,
    "dent": _dent,
    "hole": _hole,
    "missing": _missing,
}
