"""A synthetic inspection camera: machined parts on a belt, with known defects.

Every picture is drawn from (seed, number) alone, so that a run can be repeated and any single part drawn again. The
part's height map is shaded by one lamp, so that bolts, bores, dents and scratches obey the same light and none of them
is given away by a colour of its own.

There are two worlds, which share neither shapes of parts nor fasteners, textures or lamps: "train", and "held-out",
which shows what a model makes of parts that it never saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple, get_args

import cv2
import numpy as np

from clients import defects, shapes
from clients.lamp import REACH, Lamp, light
from clients.shapes import World
from clients.texture import BELTS, FINISHES, Textures
from clients.workpiece import CLASSES, Defect, Field, Image, Piece, Surface

#: Share of the parts that show a defect, unless said otherwise.
DEFECT_RATE: Final = 0.25
#: What a defect changes at least, as `Defect.contrast`: what nobody can see is no truth.
LEAST_CONTRAST: Final = 9.0


class Part(NamedTuple):
    """One triggered picture (height x width x 3, uint8 BGR), the part's number, and what is wrong with it."""

    image: Image
    part_id: str
    truth: list[Defect]


class SyntheticCamera:
    """Draws part after part.

    `size` is (height, width) in pixels, at least 64 each; `defect_rate` the share of parts with one or two defects;
    `world`: "held-out" for what no training has seen, "train" for what models are trained with.
    Iterating never ends; `part(number)` draws any one of them.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        size: tuple[int, int] = (480, 640),
        defect_rate: float = DEFECT_RATE,
        world: World = "held-out",
    ) -> None:
        if min(size) < 64:
            raise ValueError(f"size {size}: a part needs at least 64 pixels each way")
        if not 0 <= defect_rate <= 1:
            raise ValueError(f"defect_rate {defect_rate}: it is a share between 0 and 1")
        if world not in get_args(World):
            raise ValueError(f"world {world!r}: it is one of {', '.join(get_args(World))}")
        self.seed = seed
        self.size = size
        self.defect_rate = defect_rate
        self.world: World = world

    def __iter__(self) -> Iterator[Part]:
        number = 0
        while True:
            yield self.part(number)
            number += 1

    def part(self, number: int) -> Part:
        """Draw part `number`: the same picture and the same truth every time."""
        rng = np.random.default_rng((self.seed, number))
        piece = shapes.make(rng, self.size, self.world)
        sound = piece.surface
        harm = self._harm(number)
        if harm.random() < self.defect_rate:
            sound = sound.copy()
            for name in harm.choice(CLASSES, size=int(harm.integers(1, 3))):
                defects.damage(piece, name, harm)
        scene = self._scene(piece, rng)
        grey, truth = scene.grey(piece, sound)
        grey += self._noise(rng) * rng.uniform(1.5, 4.0)
        return Part(_colour(grey, piece.surface.solid, rng, self.world), f"{self.seed}-{number:06d}", truth)

    def has_defect(self, number: int) -> bool:
        """Whether part `number` has one, without drawing it."""
        return bool(self._harm(number).random() < self.defect_rate)

    def _harm(self, number: int) -> np.random.Generator:
        """Numbers of its own: with or without defects, the rest of a picture is the same."""
        return np.random.default_rng((self.seed, number, 1))

    def _scene(self, piece: Piece, rng: np.random.Generator) -> Scene:
        """Everything about a picture but the part: lamp, belt, finish, exposure, focus."""
        lamp = light(rng, self.size, self.world)
        belt = self._textures.belt(str(rng.choice(BELTS[self.world])))[self._window(rng)]
        ground = (belt * rng.uniform(0.7, 1.3) + rng.uniform(32, 62)) * lamp.shadow(piece.surface.solid)
        finish = self._textures.finish(str(rng.choice(FINISHES[self.world])))
        height, width = self.size
        middle = np.array([[0, 0, width / 2], [0, 0, height / 2]])
        turn = cv2.getRotationMatrix2D((width, height), -math.degrees(piece.angle), 1.0) - middle
        grain = cv2.warpAffine(finish, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
        metal = (grain * rng.uniform(1.5, 4.5) + rng.uniform(105, 155)) * lamp.glow
        blur = rng.uniform(0.45, 1.1)
        # The belt runs to the right: a long exposure smears along it.
        smear = blur + rng.uniform(0, 0.6) * (rng.random() < 0.3)
        return Scene(ground, metal, lamp, rng.uniform(0.85, 1.15), (smear, blur), max(0.8, piece.radius / 140))

    def _noise(self, rng: np.random.Generator) -> Field:
        return self._textures.noise()[self._window(rng)]

    def _window(self, rng: np.random.Generator) -> tuple[slice, slice]:
        """The part of a texture that one picture shows."""
        top, left = (int(rng.integers(length)) for length in self.size)
        return np.s_[top : top + self.size[0], left : left + self.size[1]]

    @cached_property
    def _textures(self) -> Textures:
        return Textures(self.seed, self.size)


class Scene(NamedTuple):
    """Belt and metal in this light, in grey levels, and how the picture is taken: `exposure`, a factor; `focus`, spread
    in pixels along and across; `soft`, over how many pixels edges are rounded."""

    ground: Field
    metal: Field
    lamp: Lamp
    exposure: float
    focus: tuple[float, float]
    soft: float

    def grey(self, piece: Piece, sound: Surface) -> tuple[Field, list[Defect]]:
        """The picture without noise, and the truth with each defect's contrast: its difference from `sound`."""
        picture = self._take(piece.surface, np.s_[0 : piece.size[0], 0 : piece.size[1]])
        truth = [self._measure(defect, piece.surface, sound, picture) for defect in piece.truth]
        return picture, truth

    def _measure(self, defect: Defect, surface: Surface, sound: Surface, picture: Field) -> Defect:
        """The defect with its contrast; one too faint to see is made stronger in `picture`."""
        area, inside = _around(defect, picture.shape)
        change = self._take(surface, area) - self._take(sound, area)
        contrast = math.sqrt(float(np.square(change[inside > 0]).mean()))
        if 0 < contrast < LEAST_CONTRAST:
            picture[area] += change * (LEAST_CONTRAST / contrast - 1)
        return defect._replace(contrast=round(max(contrast, LEAST_CONTRAST), 2))

    def _take(self, surface: Surface, area: tuple[slice, slice]) -> Field:
        """Shade, expose and defocus a part of the picture."""
        wide, inner = _widened(area, surface.solid.shape, REACH)
        here, ground = surface.cut(wide), self.ground[wide]
        covering = here.solid * np.float32(1 / 255)
        light = ground + (self.metal[wide] + here.marks - ground) * covering + self.lamp.shade(here, self.soft)
        light *= np.float32(self.exposure)
        return np.asarray(cv2.GaussianBlur(light, (7, 7), self.focus[0], sigmaY=self.focus[1])[inner], np.float32)


def _around(defect: Defect, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], Image]:
    """The area where a defect changes something, and which of its pixels lie in the defect."""
    x1, y1, x2, y2 = map(int, defect.box)
    area, _ = _widened(np.s_[y1:y2, x1:x2], shape, 12)
    inside = np.zeros([side.stop - side.start for side in area], np.uint8)
    corner = np.array([area[1].start, area[0].start])
    cv2.fillPoly(inside, [defect.polygon.astype(np.int32) - corner], 255)
    return area, inside


def _widened(
    area: tuple[slice, slice], shape: tuple[int, ...], by: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The area and `by` pixels around it that are in the picture, and the area's place in that."""
    wide = [
        slice(max(0, side.start - by), min(length, side.stop + by)) for side, length in zip(area, shape, strict=True)
    ]
    inner = [slice(side.start - out.start, side.stop - out.start) for side, out in zip(area, wide, strict=True)]
    return (wide[0], wide[1]), (inner[0], inner[1])


def _colour(light: Field, solid: Image, rng: np.random.Generator, world: World) -> Image:
    """Grey to BGR: a greenish or bluish belt, and metal with the lamp's cast."""
    grey = np.clip(light, 0, 255).astype(np.uint8)
    cast = rng.uniform(-0.05, 0.05)
    tint = (1.06, 1.0, 0.94) if world == "held-out" else (0.98, 1.0, 0.86)
    channels = []
    for belt, metal in zip(tint, (1 + cast, 1.0, 1 - cast), strict=True):
        channel = cv2.LUT(grey, _gain(belt))
        cv2.copyTo(cv2.LUT(grey, _gain(metal)), solid, channel)
        channels.append(channel)
    return np.asarray(cv2.merge(channels), np.uint8)


def _gain(factor: float) -> Image:
    return np.asarray(np.clip(np.arange(256) * factor, 0, 255), np.uint8)
