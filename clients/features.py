"""What a synthetic part has on its face besides fasteners: openings, pads and pockets."""

from __future__ import annotations

import math

import numpy as np

from clients.workpiece import FACE, WASHER, Piece, Points, ring, rounded, turned

#: Most openings, pads and pockets of a part; half of a side, in radii of the part; places tried for each.
_MOST = 3
_SMALLEST, _LARGEST = 0.045, 0.4
_TRIES = 8


def middle(piece: Piece, rng: np.random.Generator, half: Points) -> None:
    """In the middle a bore, a slot, a raised pad, a pocket, or nothing."""
    inner = half * rng.uniform(0.22, 0.4, 2)
    match int(rng.integers(5)):
        case 0:
            piece.bore(rng.uniform(0.12, 0.24) * ring(), np.zeros(2))
        case 1:
            piece.bore(rounded(inner * [1, 0.5], 0.05), np.zeros(2))
        case 2:
            piece.raise_to(WASHER, rounded(inner, 0.05))
        case 3:
            piece.raise_to(FACE - int(rng.integers(12, 30)), rounded(inner, 0.05))


def scattered(piece: Piece, rng: np.random.Generator, half: Points) -> None:
    """Any number of them, of any size and at any angle, within `half` of the middle, where the face has room.

    A model that saw only few kinds takes every other one for a defect.
    """
    for number in range(int(rng.integers(_MOST + 1))):
        outline = _outline(rng)
        for _ in range(_TRIES):
            place = rng.uniform(-1, 1, 2) * half * (number > 0 or rng.random() < 0.4)
            if piece.free(piece.covered(place + 1.2 * outline)):
                _make(piece, rng, outline, place)
                break


def _outline(rng: np.random.Generator) -> Points:
    """Round, or with four sides and corners of any radius."""
    size = math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST)))
    if rng.random() < 0.25:
        return size * ring()
    half = size * np.array((1.0, rng.uniform(0.3, 1.0)))
    turn = rng.uniform(0, math.pi) if rng.random() < 0.4 else 0.0
    return turned(rounded(half, float(half.min()) * rng.uniform(0.05, 0.95)), turn)


def _make(piece: Piece, rng: np.random.Generator, outline: Points, place: Points) -> None:
    match int(rng.integers(3)):
        case 0:
            piece.bore(outline, place)
        case 1:
            piece.raise_to(FACE + int(rng.integers(10, 30)), place + outline)
        case _:
            piece.raise_to(FACE - int(rng.integers(10, 34)), place + outline)
