"""A writer of ONNX graphs with a dynamic batch: each call adds a node and returns the tensor that it makes.

Shapes leave the batch out: a feature map is (channels, height, width), a table (rows, columns). Tensors are float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from workers.errors import ModelError
from workers.zoo.window import Padding, pads, slid


@dataclass(frozen=True, slots=True)
class Blank:
    """Weights that are not there yet: an architecture is counted, or compared, before a byte of them is."""

    shape: tuple[int, ...]


Weights: TypeAlias = NDArray[np.float32] | Blank
#: TensorRT's parser and onnxruntime 1.20 take both; opset 17 is the least that later steps (fp16, Q/DQ) work on.
OPSET: Final = 17
IR_VERSION: Final = 8
BATCH: Final = "batch"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value in the graph: its unique name, and its shape without the batch."""

    name: str
    shape: tuple[int, ...]


class Graph:
    """Collects nodes and weights. Methods raise ModelError for shapes that do not fit together."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._scope = ""
        self._used: dict[str, int] = {}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._blanks: dict[str, Any] = {}
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []

    # --- names, weights, ends ----------------------------------------------------------------------------------------

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """What is added inside is named `name/...`, so that a later step (or a person) finds it again."""
        outer = self._scope
        self._scope = f"{outer}{name}/"
        try:
            yield
        finally:
            self._scope = outer

    def input(self, name: str, *shape: int) -> Tensor:
        self._inputs.append(Tensor(self._unique(name), shape))
        return self._inputs[-1]

    def output(self, source: Tensor, name: str) -> Tensor:
        """Make `source` an output of the model, called `name`."""
        self._nodes.append(helper.make_node("Identity", [source.name], [self._unique(name)], name=f"{name}/Identity"))
        self._outputs.append(Tensor(name, source.shape))
        return self._outputs[-1]

    def constant(self, value: NDArray[Any] | Blank | Sequence[int] | float, name: str = "constant") -> str:
        """Store an array as it is, integers as int64, a number as float32; returns its name."""
        unique = self._unique(self._scope + name)
        if isinstance(value, Blank):
            self._blanks[unique] = TensorProto(name=unique, dims=value.shape, data_type=TensorProto.FLOAT)
            self._constants.append(self._blanks[unique])
            return unique
        kind = None if isinstance(value, np.ndarray) else np.float32 if isinstance(value, float) else np.int64
        self._constants.append(numpy_helper.from_array(np.asarray(value, kind), unique))
        return unique

    def fill(self, name: str, values: NDArray[np.float32]) -> None:
        """Give the `Blank` constant `name` its values. `model` needs all of them."""
        blank = self._blanks[name]
        if tuple(blank.dims) != values.shape:
            raise ModelError(f"{name} has the shape {tuple(blank.dims)}, not {values.shape}")
        blank.raw_data = values.astype("<f4", order="C", copy=False).tobytes()

    def add(self, kind: str, inputs: Sequence[Tensor | str], shape: tuple[int, ...], **attributes: Any) -> Tensor:
        """Any ONNX node of one output, whose `shape` the caller knows; strings are constants, "" a left-out one."""
        name = self._unique(self._scope + kind)
        names = [value.name if isinstance(value, Tensor) else value for value in inputs]
        self._nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return Tensor(name, shape)

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The finished model, checked; `metadata` as `workers.model` reads it (task, names, imgsz, gongwei.fit...)."""
        model = self.draft()
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model

    def draft(self) -> onnx.ModelProto:
        """The model as far as it is written: unchecked, without metadata, and with blanks still empty."""
        inputs, outputs = ([_info(tensor) for tensor in tensors] for tensors in (self._inputs, self._outputs))
        body = helper.make_graph(self._nodes, self._name, inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="gongwei")

    def _unique(self, name: str) -> str:
        """The name itself the first time, then with a number."""
        unique = name
        while unique in self._used:
            self._used[name] += 1
            unique = f"{name}_{self._used[name]}"
        self._used[unique] = 1
        return unique

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

    def softmax(self, source: Tensor) -> Tensor:
        """Over the last dimension."""
        return self._map("Softmax", source, axis=-1)

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


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, [BATCH, *tensor.shape])
