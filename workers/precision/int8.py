"""A graph in int8: QuantizeLinear and DequantizeLinear before the convolutions and fully connected layers.

As TensorRT's parser takes it: symmetric (zero point 0), activations per tensor, weights per output channel and stored
as int8, biases as they are. Heads stay fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from workers.precision.heads import heads
from workers.precision.rewriting import rewrite

_QUANTISED: Final = ("Conv", "Gemm")
#: Greatest magnitude of 8 bits; -128 is not used, so that both sides are alike.
_GREATEST: Final = 127


def quantised(graph: Any) -> list[Any]:
    """The nodes that are quantised: Conv and Gemm with weights of their own, without the heads."""
    constants, stay = {one.name for one in graph.initializer}, heads(graph)
    return [
        node
        for place, node in enumerate(graph.node)
        if place not in stay
        and node.op_type in _QUANTISED
        and node.input[1] in constants
        and node.input[0] not in constants
        and _attribute(node, "transA") == 0
    ]


def quantise(graph: Any, ranges: Mapping[str, float]) -> None:
    """Rewrite `graph` in place; `ranges`: of the first input of each of `quantised` the magnitude that becomes 127."""
    Quantiser(graph, ranges).run()


class Quantiser:
    """Rewrites the nodes of one graph."""

    def __init__(self, graph: Any, ranges: Mapping[str, float]) -> None:
        self._graph = graph
        self._ranges = ranges
        self._constants = {one.name: one for one in graph.initializer}
        self._nodes: list[Any] = []
        self._made: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        chosen = {node.output[0] for node in quantised(self._graph)}
        for node in list(self._graph.node):
            if node.output[0] in chosen:
                node.input[0] = self._activation(node.input[0])
                node.input[1] = self._weights(node.input[1], _channels(node))
            self._nodes.append(node)
        rewrite(self._graph, self._nodes, self._constants)

    def _activation(self, name: str) -> str:
        """The value `name` after a trip through int8; one trip, however many look at it."""
        key = (name, -1)
        if key not in self._made:
            scale = np.float32(self._ranges[name] / _GREATEST or 1.0)
            ends = self._constant(f"{name}/scale", scale), self._constant(f"{name}/zero", np.int8(0))
            small = f"{name}/int8"
            self._add("QuantizeLinear", [name, *ends], small)
            self._made[key] = self._add("DequantizeLinear", [small, *ends], f"{name}/fp32")
        return self._made[key]

    def _weights(self, name: str, axis: int) -> str:
        """The weights `name`, stored as int8, each slice along `axis` with a scale of its own."""
        key = (name, axis)
        if key not in self._made:
            small, scales = rounded(numpy_helper.to_array(self._constants[name]), axis)
            unique = f"{name}/axis{axis}"
            parts = [
                self._constant(f"{unique}/int8", small),
                self._constant(f"{unique}/scale", scales),
                self._constant(f"{unique}/zero", np.zeros(len(scales), np.int8)),
            ]
            self._made[key] = self._add("DequantizeLinear", parts, f"{unique}/fp32", axis=axis)
        return self._made[key]

    def _constant(self, name: str, value: Any) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _add(self, kind: str, names: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, names, [output], name=f"{output}/{kind}", **attributes))
        return output


def rounded(weights: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as int8, and the scale of each slice along `axis`."""
    others = tuple(number for number in range(weights.ndim) if number != axis)
    scales = (np.abs(weights).max(axis=others, keepdims=True) / _GREATEST).astype(np.float32)
    scales[scales == 0] = 1.0
    small = np.clip(np.rint(weights / scales), -_GREATEST, _GREATEST).astype(np.int8)
    return small, scales.ravel()


def _channels(node: Any) -> int:
    """The dimension of the weights that counts the outputs."""
    return 1 if node.op_type == "Gemm" and not _attribute(node, "transB") else 0


def _attribute(node: Any, name: str) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), 0)
