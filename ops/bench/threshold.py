"""Inspection without a network, as the demo models are compared with: grey levels, morphology, thresholds.

The part is told from the belt by Otsu's threshold; a bite in its rim is what its convex hull or its closing has more; a
defect of the face is a spot or line that is darker or brighter than its surroundings, away from edges and from round
or large things, which are machined.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import cv2
import numpy as np

from clients.workpiece import Image


class Limits(NamedTuple):
    """`level`: least departure from the surroundings, in standard deviations of the face; `area`: least pixels of a
    spot, of a bite; `round_`: spots rounder than this are machined (1: a circle); `rim`: pixels along edges that are
    not looked at. Chosen from a grid on parts of the training world: lower limits alarm at every second sound part."""

    level: float = 20.0
    area: float = 120.0
    bite: float = 400.0
    round_: float = 0.5
    rim: int = 9


class Spot(NamedTuple):
    """Something that should not be there: its box (x1, y1, x2, y2) in pixels."""

    box: tuple[float, float, float, float]


LIMITS: Final = Limits()
_CLOSING: Final = 41
_HAT: Final = 25


def inspect(picture: Image, limits: Limits = LIMITS) -> list[Spot]:
    """What looks wrong in one BGR picture."""
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (5, 5), 1.0)
    _, solid = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    part = _largest(solid)
    return _bites(part, limits) + _marks(grey, part, limits)


def _largest(solid: Any) -> Image:
    contours, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    part = np.zeros(solid.shape, np.uint8)
    if contours:
        cv2.drawContours(part, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    return part


def _bites(part: Image, limits: Limits) -> list[Spot]:
    """What a closing fills in along the outer rim; wide corners, as an angle has, are filled only a little."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_CLOSING, _CLOSING))
    edge = cv2.copyMakeBorder(part, _CLOSING, _CLOSING, _CLOSING, _CLOSING, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(edge, cv2.MORPH_CLOSE, kernel)[_CLOSING:-_CLOSING, _CLOSING:-_CLOSING]
    gaps = cv2.morphologyEx(cv2.subtract(closed, part), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return [spot for spot, area, _ in _spots(gaps) if area >= limits.bite]


def _marks(grey: Any, part: Image, limits: Limits) -> list[Spot]:
    """Spots and lines of the face, darker or brighter than what is around them."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_HAT, _HAT))
    face = cv2.erode(part, np.ones((2 * limits.rim + 1,) * 2, np.uint8))
    dark = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel)
    bright = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel)
    found = []
    for hat in (dark, bright):
        values = hat[face > 0]
        if values.size == 0:
            continue
        middle = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values.astype(np.float32) - middle))) or 1.0
        over = ((hat > middle + limits.level * spread) & (face > 0)).astype(np.uint8) * np.uint8(255)
        closed = cv2.morphologyEx(over, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        found += [spot for spot, area, roundness in _spots(closed) if area >= limits.area and roundness < limits.round_]
    return found


def _spots(binary: Any) -> list[tuple[Spot, float, float]]:
    """Each connected spot with its area and its roundness."""
    contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    spots = []
    for contour in contours:
        area = float(cv2.contourArea(contour))
        x, y, width, height = cv2.boundingRect(contour)
        length = cv2.arcLength(contour, True) or 1.0
        spots.append(
            (Spot((float(x), float(y), float(x + width), float(y + height))), area, 4 * np.pi * area / length**2)
        )
    return spots
