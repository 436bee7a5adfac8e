"""The operators of which models are made here: each call adds a node to an ONNX graph and returns the tensor it makes.

Shapes leave the batch out: a feature map is (channels, height, width), a table (rows, columns). Tensors are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.errors import ModelError
from workers.zoo.window import Padding, pads, slid
from workers.zoo.writer import Tensor, Weights, Writer


class Graph(Writer):
    """A graph while it is written. Methods raise ModelError for shapes that do not fit together."""

    # --- layers ------------------------------------------------------------------------------------------------------

    def conv(
        self,
        source: Tensor,
        weights: Weights,
        bias: Weights | None = None,
        *,
        stride: int = 1,
        padding: Padding = 0,
        groups: int = 1,
    ) -> Tensor:
        """Convolution with `weights` [out, in / groups, height, width] and `bias` [out]."""
        filters, channels, *kernel = weights.shape
        if channels * groups != source.shape[0] or filters % groups:
            raise ModelError(f"weights {weights.shape} in {groups} groups do not fit {source.shape[0]} channels")
        inputs: list[Tensor | str] = [source, self.constant(weights, "weight")]
        inputs += [] if bias is None else [self.constant(bias, "bias")]
        around = pads(padding)
        shape = (filters, *slid(source.shape, kernel, stride, around))
        sizes = {"kernel_shape": kernel, "strides": [stride] * 2, "pads": around, "group": groups}
        return self.add("Conv", inputs, shape, **sizes)

    def maxpool(self, source: Tensor, size: int, *, stride: int = 1, padding: Padding = 0) -> Tensor:
        """Greatest value in a window; the padding never wins."""
        around = pads(padding)
        shape = (source.shape[0], *slid(source.shape, [size] * 2, stride, around))
        return self.add("MaxPool", [source], shape, kernel_shape=[size] * 2, strides=[stride] * 2, pads=around)

    def average(self, source: Tensor) -> Tensor:
        """Mean of each channel over the whole map: (channels, 1, 1)."""
        return self.add("GlobalAveragePool", [source], (source.shape[0], 1, 1))

    def resize(self, source: Tensor, factor: int) -> Tensor:
        """Every pixel `factor` x `factor` times (nearest neighbour)."""
        channels, height, width = source.shape
        scales = self.constant(np.array([1, 1, factor, factor], np.float32), "scales")
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.add("Resize", [source, "", scales], (channels, height * factor, width * factor), **how)

    def gemm(self, source: Tensor, weights: Weights, bias: Weights) -> Tensor:
        """Fully connected layer with `weights` [out, in] and `bias` [out], on (in,)."""
        if weights.shape[1:] != source.shape:
            raise ModelError(f"weights {weights.shape} do not fit {source.shape}")
        constants = [self.constant(weights, "weight"), self.constant(bias, "bias")]
        return self.add("Gemm", [source, *constants], weights.shape[:1], transB=1)

    # --- activations -------------------------------------------------------------------------------------------------

    def relu(self, source: Tensor) -> Tensor:
        return self._map("Relu", source)

    def relu6(self, source: Tensor) -> Tensor:
        return self.add("Clip", [source, self.constant(0.0, "low"), self.constant(6.0, "high")], source.shape)

    def leaky(self, source: Tensor, slope: float) -> Tensor:
        return self._map("LeakyRelu", source, alpha=slope)

    def sigmoid(self, source: Tensor) -> Tensor:
        return self._map("Sigmoid", source)

    def swish(self, source: Tensor) -> Tensor:
        return self.mul(source, self.sigmoid(source))

    def mish(self, source: Tensor) -> Tensor:
        """x * tanh(softplus(x)): opset 17 has no Mish of its own."""
        return self.mul(source, self._map("Tanh", self._map("Softplus", source)))

    def exp(self, source: Tensor) -> Tensor:
        return self._map("Exp", source)

    def _map(self, kind: str, source: Tensor, **attributes: Any) -> Tensor:
        return self.add(kind, [source], source.shape, **attributes)

    # --- arithmetic --------------------------------------------------------------------------------------------------

    def plus(self, source: Tensor, other: Tensor | NDArray[np.float32] | float) -> Tensor:
        return self._with("Add", source, other)

    def mul(self, source: Tensor, other: Tensor | NDArray[np.float32] | float) -> Tensor:
        return self._with("Mul", source, other)

    def _with(self, kind: str, source: Tensor, other: Tensor | NDArray[np.float32] | float) -> Tensor:
        """`other`: a tensor of the same shape, a number, or an array that broadcasts to `source` (batch included)."""
        if isinstance(other, Tensor):
            if other.shape != source.shape:
                raise ModelError(f"{kind} of {source.shape} and {other.shape}: the shapes differ")
            return self.add(kind, [source, other], source.shape)
        return self.add(kind, [source, self.constant(other)], source.shape)

    # --- shapes; axes count without the batch: 0 is the channels of a map --------------------------------------------

    def concat(self, sources: Sequence[Tensor], axis: int = 0) -> Tensor:
        rests = {(*source.shape[:axis], *source.shape[axis + 1 :]) for source in sources}
        if len(rests) != 1:
            raise ModelError(f"{[source.shape for source in sources]} cannot be joined along dimension {axis}")
        shape = list(sources[0].shape)
        shape[axis] = sum(source.shape[axis] for source in sources)
        return self.add("Concat", list(sources), tuple(shape), axis=axis + 1)

    def slice(self, source: Tensor, start: int, end: int, axis: int = 0) -> Tensor:
        """The part from `start` up to, not including, `end`."""
        if not 0 <= start < end <= source.shape[axis]:
            raise ModelError(f"{start} to {end} is no part of dimension {axis} of {source.shape}")
        numbers = [self.constant([number], "bound") for number in (start, end, axis + 1)]
        shape = (*source.shape[:axis], end - start, *source.shape[axis + 1 :])
        return self.add("Slice", [source, *numbers], shape)

    def reshape(self, source: Tensor, *shape: int) -> Tensor:
        if math.prod(shape) != math.prod(source.shape):
            raise ModelError(f"{source.shape} cannot become {shape}")
        # 0 takes the batch over as it comes.
        return self.add("Reshape", [source, self.constant([0, *shape], "shape")], shape)

    def transpose(self, source: Tensor, *axes: int) -> Tensor:
        """Dimension i becomes what `axes[i]` was."""
        shape = tuple(source.shape[axis] for axis in axes)
        return self.add("Transpose", [source], shape, perm=[0, *(axis + 1 for axis in axes)])
