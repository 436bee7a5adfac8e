"""What every ONNX graph with a dynamic batch is written with: unique names, weights, nodes, inputs and outputs.

Shapes leave the batch out: a feature map is (channels, height, width), a table (rows, columns). Tensors are float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from workers.errors import ModelError


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


class Writer:
    """Collects nodes and weights."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._scope = ""
        self._used: dict[str, int] = {}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._blanks: dict[str, Any] = {}
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []

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
        """Give the `Blank` constant `name` its values; `model` needs all. Raises ModelError for another shape."""
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


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, [BATCH, *tensor.shape])
