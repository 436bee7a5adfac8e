"""A synthetic inspection camera: machined parts on a belt, with known defects.

Every picture is drawn from (seed, number) alone, so that a run can be repeated and any single part drawn again. The
part's height map is shaded by one lamp, so that bolts, bores, dents and scratches obey the same light and none of them
is given away by a colour of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple

import cv2
import numpy as np

from clients.workpiece import CLASSES, Defect, Field, Image, Piece

#: Share of the parts that show a defect, unless said otherwise.
DEFECT_RATE: Final = 0.25

#: Slope towards the lower right, away from the lamp, times how much brightness it makes.
_SLOPE: Final = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)


class Part(NamedTuple):
    """One triggered picture (height x width x 3, uint8 BGR), the part's number, and what is wrong with it."""

    image: Image
    part_id: str
    truth: list[Defect]


class SyntheticCamera:
    """Draws part after part.

    `size` is (height, width) in pixels, at least 64 each; `defect_rate` the share of parts with one or two defects.
    Iterating never ends; `part(number)` draws any one of them.
    """

    def __init__(self, seed: int = 0, *, size: tuple[int, int] = (480, 640), defect_rate: float = DEFECT_RATE) -> None:
        if min(size) < 64:
            raise ValueError(f"size {size}: a part needs at least 64 pixels each way")
        if not 0 <= defect_rate <= 1:
            raise ValueError(f"defect_rate {defect_rate}: it is a share between 0 and 1")
        self.seed = seed
        self.size = size
        self.defect_rate = defect_rate

    def __iter__(self) -> Iterator[Part]:
        number = 0
        while True:
            yield self.part(number)
            number += 1

    def part(self, number: int) -> Part:
        """Draw part `number`: the same picture and the same truth every time."""
        rng = np.random.default_rng((self.seed, number))
        piece = Piece(rng, self.size)
        if rng.random() < self.defect_rate:
            for name in rng.choice(CLASSES, size=int(rng.integers(1, 3))):
                piece.damage(name, rng)
        return Part(self._expose(piece, rng), f"{self.seed}-{number:06d}", piece.truth)

    def _expose(self, piece: Piece, rng: np.random.Generator) -> Image:
        """Take the picture: shade the relief, expose, defocus, add noise and colour."""
        height, width = self.size
        belt, brushed, noise = self._textures
        top, left = int(rng.integers(height)), int(rng.integers(width))
        cut = np.s_[top : top + height, left : left + width]
        middle = np.array([[0, 0, width / 2], [0, 0, height / 2]])
        turn = cv2.getRotationMatrix2D((width, height), -math.degrees(piece.angle), 1.0) - middle
        grain = cv2.warpAffine(brushed, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
        metal = (grain * rng.uniform(1.5, 4.0) + rng.uniform(115, 150)) * _lamp(rng, self.size)
        ground = belt[cut] * _shade(piece.solid)
        light = ground + (metal - ground) * (piece.solid * np.float32(1 / 255)) + _shading(piece)
        light = cv2.GaussianBlur(light * rng.uniform(0.88, 1.12), (5, 5), rng.uniform(0.45, 0.9))
        light += noise[cut] * rng.uniform(1.5, 3.5)
        return _colour(light, piece.solid, rng)

    @cached_property
    def _textures(self) -> tuple[Field, Field, Field]:
        """Belt, brushed metal and sensor noise, larger than a picture: each picture takes its own cut of them."""
        rng = np.random.default_rng((self.seed, 0xBE17))
        height, width = self.size[0] * 2, self.size[1] * 2
        raw = rng.standard_normal((3, height, width), dtype=np.float32)
        weave = np.outer(np.sin(np.arange(height) * 0.8), np.sin(np.arange(width) * 0.8)).astype(np.float32)
        belt = 44 + 2.5 * weave + 5 * cv2.GaussianBlur(raw[0], (0, 0), 1.0) + 90 * cv2.GaussianBlur(raw[0], (0, 0), 20)
        brushed = cv2.GaussianBlur(raw[1], (0, 0), sigmaX=18, sigmaY=0.7)
        return belt, brushed / float(brushed.std()), raw[2]


def _shading(piece: Piece) -> Field:
    """Brightness that the slopes of the relief add or take, with the lamp at the upper left."""
    relief = cv2.GaussianBlur(piece.relief.astype(np.float32), (7, 7), max(0.8, piece.radius / 140)) + piece.dents
    return np.asarray(np.clip(cv2.filter2D(relief, -1, _SLOPE), -95, 100), np.float32)


def _shade(solid: Image) -> Field:
    """The part's soft shadow on the belt, as a factor."""
    small = cv2.resize(solid, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    step = max(1, min(solid.shape) // 160)
    moved = cv2.warpAffine(small, np.array([[1.0, 0, step], [0, 1, step]]), small.shape[::-1])
    soft = cv2.resize(cv2.GaussianBlur(moved, (0, 0), step * 1.5), solid.shape[::-1]).astype(np.float32)
    return np.asarray(1 - soft * np.float32(0.55 / 255), np.float32)


def _lamp(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Uneven light: a slope across the picture and the lamp's soft highlight, as a factor."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    spot = rng.uniform(-0.8, 0.8, 2)
    glow = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / rng.uniform(0.3, 1.0))
    tilt = rng.uniform(-0.1, 0.1, 2)
    coarse = (1 + tilt[0] * x + tilt[1] * y + rng.uniform(0.1, 0.35) * glow).astype(np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1]), np.float32)


def _colour(light: Field, solid: Image, rng: np.random.Generator) -> Image:
    """Grey to BGR: a greenish belt, and metal with the lamp's cast."""
    grey = np.clip(light, 0, 255).astype(np.uint8)
    cast = rng.uniform(-0.05, 0.05)
    channels = []
    for belt, metal in ((0.98, 1 + cast), (1.0, 1.0), (0.86, 1 - cast)):
        channel = cv2.LUT(grey, _gain(belt))
        cv2.copyTo(cv2.LUT(grey, _gain(metal)), solid, channel)
        channels.append(channel)
    return np.asarray(cv2.merge(channels), np.uint8)


def _gain(factor: float) -> Image:
    return np.asarray(np.clip(np.arange(256) * factor, 0, 255), np.uint8)
