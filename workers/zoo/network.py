"""A network of the zoo while it is written: its graph without weights, its layers, and what one picture costs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workers.zoo.graph import Graph
from workers.zoo.writer import Blank, Tensor

Array: TypeAlias = NDArray[np.float32]
#: Values of a layer: weights as `Layer.shape` says, and as many biases as it has outputs.
Values: TypeAlias = tuple[Array, Array]


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution (`shape`: [out, in / groups, height, width]) or a fully connected layer ([out, in]).

    `name` and `norm` are what PyTorch calls it, and the batch norm that is folded into it ("": none). `prior`: what it
    answers in the mean with random weights, by channel, repeated as often as it fits; `spread`: its standard deviation.
    """

    name: str
    norm: str
    shape: tuple[int, ...]
    prior: tuple[float, ...]
    spread: float
    #: Names of its weights and biases in the graph.
    constants: tuple[str, str]

    @property
    def parameters(self) -> int:
        """Weights and biases; batch norm is folded, so that it has none of its own."""
        return math.prod(self.shape) + self.shape[0]


@dataclass(slots=True)
class Cost:
    """Of one picture. `macs`: multiplications with an addition, `linear`: those of fully connected layers alone;
    `biases`: additions of a bias; `upsampled`: values that upsampling writes."""

    macs: int = 0
    linear: int = 0
    biases: int = 0
    upsampled: int = 0


class Network:
    """Writes layers into a graph and keeps account of them. Methods raise ModelError for what does not fit.

    `epsilon`: what batch norm adds to a variance, where a file of weights still has it apart.
    """

    def __init__(self, name: str, epsilon: float) -> None:
        self.name: Final = name
        self.epsilon: Final = epsilon
        self.graph: Final = Graph(name)
        self.layers: list[Layer] = []
        self.cost: Final = Cost()

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    def conv(
        self,
        source: Tensor,
        channels: int,
        kernel: int,
        name: str,
        *,
        norm: str = "",
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        prior: tuple[float, ...] = (0.0,),
        spread: float = 1.0,
    ) -> Tensor:
        """Convolution with biases and nothing after it; `padding`: half the kernel where nothing is said."""
        shape = (channels, source.shape[0] // groups, kernel, kernel)
        around = kernel // 2 if padding is None else padding
        with self.graph.scope(name):
            weights, biases = Blank(shape), Blank(shape[:1])
            made = self.graph.conv(source, weights, biases, stride=stride, padding=around, groups=groups)
        self._account(Layer(name, norm, shape, prior, spread, _constants(name)), math.prod(made.shape[1:]))
        return made

    def linear(self, source: Tensor, outputs: int, name: str) -> Tensor:
        """Fully connected layer on (in,)."""
        shape = (outputs, *source.shape)
        with self.graph.scope(name):
            made = self.graph.gemm(source, Blank(shape), Blank(shape[:1]))
        self._account(Layer(name, "", shape, (0.0,), 1.0, _constants(name)), 1)
        self.cost.linear += math.prod(shape)
        return made

    def upsample(self, source: Tensor) -> Tensor:
        """Twice as high and wide, nearest neighbour."""
        made = self.graph.resize(source, 2)
        self.cost.upsampled += math.prod(made.shape)
        return made

    def model(self, values: Mapping[str, Values], metadata: Mapping[str, str]) -> Any:
        """The onnx.ModelProto with `values` by layer name."""
        for layer in self.layers:
            for constant, value in zip(layer.constants, values[layer.name], strict=True):
                self.graph.fill(constant, value)
        return self.graph.model(metadata)

    def _account(self, layer: Layer, places: int) -> None:
        self.layers.append(layer)
        self.cost.macs += math.prod(layer.shape) * places
        self.cost.biases += layer.shape[0] * places


def _constants(name: str) -> tuple[str, str]:
    return f"{name}/weight", f"{name}/bias"
