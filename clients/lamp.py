"""The lamp over the synthetic camera's belt. Those of the held-out world never shine in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from clients.shapes import World
from clients.workpiece import Field, Image, Surface

#: Slopes to the right and down: rows and columns of a kernel.
_ACROSS: Final = np.array([[-1, 0, 1]] * 3, np.float32)
#: How far around a pixel its shading looks.
REACH: Final = 8
#: Most that a slope adds or takes, in grey levels.
_DARKEST, _BRIGHTEST = -95.0, 100.0


@dataclass(frozen=True, slots=True)
class Lamp:
    """`heading`: where its light goes, in radians; `gain`: brightness per slope; `glow`: evenness, as a factor."""

    heading: float
    gain: float
    glow: Field

    def shade(self, surface: Surface, soft: float) -> Field:
        """Brightness that slopes add or take; edges are rounded over `soft` pixels."""
        relief = cv2.GaussianBlur(surface.relief.astype(np.float32), (7, 7), soft) + surface.dents
        kernel = math.cos(self.heading) * _ACROSS + math.sin(self.heading) * _ACROSS.T
        return np.asarray(np.clip(cv2.filter2D(relief, -1, kernel * self.gain), _DARKEST, _BRIGHTEST), np.float32)

    def shadow(self, solid: Image) -> Field:
        """The part's soft shadow on the belt, as a factor."""
        small = cv2.resize(solid, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        step = max(1.0, min(solid.shape) / 160) * math.sqrt(2)
        shift = np.array([[1, 0, step * math.cos(self.heading)], [0, 1, step * math.sin(self.heading)]])
        moved = cv2.warpAffine(small, shift, small.shape[::-1])
        soft = cv2.resize(cv2.GaussianBlur(moved, (0, 0), step), solid.shape[::-1]).astype(np.float32)
        return np.asarray(1 - soft * np.float32(0.55 / 255), np.float32)


def light(rng: np.random.Generator, size: tuple[int, int], world: World) -> Lamp:
    """A lamp of that world: in training it shines across the picture with a round highlight, held out along one of its
    sides with a bar of light. Neither becomes the other by mirroring or turning the picture."""
    quarter = float(rng.integers(4)) * math.pi / 2
    aside = rng.uniform(-12, 12) if world == "held-out" else 45 + rng.uniform(-25, 25)
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    at = rng.uniform(-0.8, 0.8, 2)
    if world == "held-out":
        turn = rng.uniform(0, math.pi)
        far = ((x - at[0]) * math.cos(turn) + (y - at[1]) * math.sin(turn)) ** 2 / rng.uniform(0.15, 0.4)
    else:
        far = ((x - at[0]) ** 2 + (y - at[1]) ** 2) / rng.uniform(0.3, 1.0)
    tilt = rng.uniform(-0.12, 0.12, 2)
    coarse = (1 + tilt[0] * x + tilt[1] * y + rng.uniform(0.1, 0.4) * np.exp(-far)).astype(np.float32)
    glow = np.asarray(cv2.resize(coarse, size[::-1]), np.float32)
    return Lamp(quarter + math.radians(aside), math.sqrt(2) * rng.uniform(0.75, 1.2), glow)
