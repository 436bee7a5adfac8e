"""What belts and metal look like close up. Those of the held-out world are never drawn for training."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np

from clients.shapes import World
from clients.workpiece import Field

#: Finishes of metal and kinds of belt by world.
FINISHES: Final[dict[World, tuple[str, ...]]] = {
    "train": ("brushed", "ground", "cast", "etched"),
    "held-out": ("blasted", "crossed"),
}
BELTS: Final[dict[World, tuple[str, ...]]] = {
    "train": ("woven", "rubber", "speckled", "stained", "slatted"),
    "held-out": ("ribbed", "felt"),
}


class Textures:
    """Belts, finishes and sensor noise, larger than a picture: each picture takes its own cut. Made when first used."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self._seed = seed
        self._shape = (size[0] * 2, size[1] * 2)
        self._made: dict[str, Field] = {}

    def noise(self) -> Field:
        """Normal, of unit variance."""
        return self._get("noise")

    def finish(self, name: str) -> Field:
        """Grain of metal, of unit variance."""
        return self._get(name)

    def belt(self, name: str) -> Field:
        """Grey levels around 0."""
        return self._get(name)

    def _get(self, name: str) -> Field:
        if name not in self._made:
            rng = np.random.default_rng((self._seed, *name.encode()))
            self._made[name] = _MAKERS[name](rng.standard_normal(self._shape, dtype=np.float32))
        return self._made[name]


def _noise(raw: Field) -> Field:
    return raw


def _brushed(raw: Field) -> Field:
    return _unit(cv2.GaussianBlur(raw, (0, 0), sigmaX=18, sigmaY=0.7))


def _ground(raw: Field) -> Field:
    """Shorter marks, and waves across them that the wheel leaves."""
    waves = np.sin(np.arange(raw.shape[0], dtype=np.float32) * 0.35)[:, None]
    return _unit(_unit(cv2.GaussianBlur(raw, (0, 0), sigmaX=6, sigmaY=0.9)) + 0.5 * waves)


def _cast(raw: Field) -> Field:
    return _unit(_unit(cv2.GaussianBlur(raw, (0, 0), 1.6)) + 0.8 * _mottled(raw, 12))


def _etched(raw: Field) -> Field:
    return _unit(_unit(raw) + 1.2 * _unit(cv2.GaussianBlur(raw, (0, 0), 3.0)) + 0.5 * _mottled(raw, 8))


def _blasted(raw: Field) -> Field:
    return _unit(_unit(cv2.GaussianBlur(raw, (0, 0), 0.8)) + 0.3 * _mottled(raw, 20))


def _crossed(raw: Field) -> Field:
    """Brushed both ways."""
    one, other = (cv2.GaussianBlur(raw, (0, 0), sigmaX=x, sigmaY=y) for x, y in ((14, 0.7), (0.7, 14)))
    return _unit(_unit(one) + _unit(other))


def _woven(raw: Field) -> Field:
    weave = np.outer(*(np.sin(np.arange(length) * 0.8) for length in raw.shape)).astype(np.float32)
    return _as_field(2.5 * weave + 5 * cv2.GaussianBlur(raw, (0, 0), 1.0) + 6 * _mottled(raw, 20))


def _rubber(raw: Field) -> Field:
    return _as_field(2 * _unit(cv2.GaussianBlur(raw, (0, 0), 2.0)) + 7 * _mottled(raw, 30))


def _speckled(raw: Field) -> Field:
    grains = cv2.GaussianBlur(raw, (0, 0), 1.2)
    return _as_field(2 * _unit(grains) + 12 * (_unit(grains) > 2.3) + 3 * _mottled(raw, 20))


def _stained(raw: Field) -> Field:
    """Blotches from the size of a defect to that of the part."""
    return _as_field(2 * _unit(cv2.GaussianBlur(raw, (0, 0), 1.4)) + 5 * _mottled(raw, 7) + 5 * _mottled(raw[::-1], 16))


def _slatted(raw: Field) -> Field:
    """Slats with dark gaps between them."""
    gaps = np.maximum(0, np.cos(np.arange(raw.shape[1], dtype=np.float32) * 0.11) - 0.9)[None]
    return _as_field(
        3 * _unit(cv2.GaussianBlur(raw, (0, 0), sigmaX=1.0, sigmaY=5)) + 3 * _mottled(raw, 20) - 120 * gaps
    )


def _ribbed(raw: Field) -> Field:
    y, x = (np.arange(length, dtype=np.float32) for length in raw.shape)
    ribs = np.sin((x[None] * math.cos(0.6) + y[:, None] * math.sin(0.6)) * 0.45)
    return _as_field(5 * ribs + 2 * _unit(cv2.GaussianBlur(raw, (0, 0), 1.0)))


def _felt(raw: Field) -> Field:
    return _as_field(5 * _unit(cv2.GaussianBlur(raw, (0, 0), sigmaX=3, sigmaY=1.0)) + 4 * _mottled(raw, 10))


_MAKERS: Final = {
    "noise": _noise,
    "brushed": _brushed,
    "ground": _ground,
    "cast": _cast,
    "etched": _etched,
    "blasted": _blasted,
    "crossed": _crossed,
    "woven": _woven,
    "rubber": _rubber,
    "speckled": _speckled,
    "stained": _stained,
    "slatted": _slatted,
    "ribbed": _ribbed,
    "felt": _felt,
}


def _mottled(raw: Field, sigma: float) -> Field:
    """Slow changes, of unit variance: made small, since they have no detail."""
    small = cv2.resize(raw, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    return _unit(cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 8), raw.shape[::-1]))


def _unit(field: object) -> Field:
    values = _as_field(field)
    return values / (float(values.std()) or 1.0)


def _as_field(field: object) -> Field:
    return np.asarray(field, np.float32)
