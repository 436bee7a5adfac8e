"""The layers of a Darknet network with their shapes, before any weight is read.

Layers are counted as Darknet counts them: from 0, without [net]. Shapes are (channels, height, width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from workers.zoo.cfg import Section

Shape: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Layer:
    """`sources`: the layers that it takes its input from, -1: the picture; `shape`: of its output."""

    section: Section
    sources: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, slots=True)
class Convolution(Layer):
    """`kernel`: (filters, channels / groups, size, size)."""

    kernel: tuple[int, int, int, int]
    stride: int
    padding: int
    groups: int
    normalized: bool
    activation: str

    @property
    def floats(self) -> int:
        """How many numbers of the weight file are its own: biases, batch norm, weights."""
        return self.kernel[0] * (4 if self.normalized else 1) + math.prod(self.kernel)


@dataclass(frozen=True, slots=True)
class Shortcut(Layer):
    """The sum of its sources."""

    activation: str


@dataclass(frozen=True, slots=True)
class Route(Layer):
    """Part `part` of `parts` equal ones of each source, joined."""

    parts: int
    part: int


@dataclass(frozen=True, slots=True)
class Upsample(Layer):
    """Every pixel `factor` x `factor` times."""

    factor: int


@dataclass(frozen=True, slots=True)
class Maxpool(Layer):
    """`padding`: rows and columns in all; half of them, rounded down, come above and to the left."""

    size: int
    stride: int
    padding: int


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """Nothing, outside of training."""


@dataclass(frozen=True, slots=True)
class Yolo(Layer):
    """A detection head. `anchors`: (width, height) in pixels of the input; `spread`: scale_x_y."""

    anchors: tuple[tuple[float, float], ...]
    classes: int
    spread: float
    new_coords: bool


@dataclass(frozen=True, slots=True)
class Network:
    """A cfg as a whole. `letterbox`: whether its [net] says that it was trained so."""

    input: Shape
    layers: tuple[Layer, ...]
    letterbox: bool

    @property
    def heads(self) -> list[Yolo]:
        return [layer for layer in self.layers if isinstance(layer, Yolo)]

    @property
    def floats(self) -> int:
        return sum(layer.floats for layer in self.layers if isinstance(layer, Convolution))
