"""A graph in fp16: weights and inner results; inputs, outputs and heads stay fp32, with a Cast at each border.

The half of a value `x` is called `x/fp16`, whether a node makes it, a Cast or a file's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from workers.precision.heads import heads
from workers.precision.rewriting import rewrite

#: Nodes that compute the same in fp16 as in fp32, a little coarser. Others stay fp32.
_LAYERS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ARITHMETIC: Final = ("Add", "Sub", "Mul", "Div", "Neg", "ReduceMean", "Softmax")
_ACTIVATIONS: Final = (
    *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Relu"),
    *("LeakyRelu", "PRelu", "Elu", "Softplus", "Clip"),
)
_SHAPES: Final = (
    *("Concat", "Split", "Slice", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Pad"),
    *("Resize", "MaxPool", "AveragePool", "GlobalAveragePool"),
)
_HALVED: Final = frozenset((*_LAYERS, *_ARITHMETIC, *_ACTIVATIONS, *_SHAPES))
#: What Resize takes beside the picture is fp32 by its definition.
_FIRST_ONLY: Final = ("Resize",)
_LARGEST: Final = float(np.finfo(np.float16).max)


class Halver:
    """Rewrites the nodes of one graph; `types` gives the element type of every value that is known."""

    def __init__(self, graph: Any, types: Mapping[str, int]) -> None:
        self._graph = graph
        self._types = types
        self._constants = {one.name: one for one in graph.initializer}
        self._nodes: list[Any] = []
        self._halves: set[str] = set()

    def run(self) -> None:
        """Rewrite the graph in place."""
        stay, wanted = heads(self._graph), {one.name for one in self._graph.output}
        halved = [place not in stay and self._can(node) for place, node in enumerate(self._graph.node)]
        for small, node in zip(halved, self._graph.node, strict=True):
            if not small:
                wanted.update(node.input)
            elif node.op_type in _FIRST_ONLY:
                wanted.update(node.input[1:])
        for small, node in zip(halved, list(self._graph.node), strict=True):
            if small:
                self._halve(node, wanted)
            else:
                self._nodes.append(node)
        rewrite(self._graph, self._nodes, self._constants)

    def _can(self, node: Any) -> bool:
        """Of a known kind, with values of known types and constants that fp16 has room for."""
        names = [name for name in [*node.input, *node.output] if name]
        known = node.op_type in _HALVED and node.domain in ("", "ai.onnx")
        if not known or any(name not in self._types for name in names):
            return False
        taken = [name for name in self._taken(node) if name in self._constants]
        return all(np.all(np.abs(numpy_helper.to_array(self._constants[name])) <= _LARGEST) for name in taken)

    def _taken(self, node: Any) -> list[str]:
        """The inputs that become fp16."""
        names = node.input[:1] if node.op_type in _FIRST_ONLY else node.input
        return [name for name in names if name and self._types[name] == TensorProto.FLOAT]

    def _halve(self, node: Any, wanted: set[str]) -> None:
        taken = set(self._taken(node))
        made = [name for name in node.output if name and self._types[name] == TensorProto.FLOAT]
        if not taken and not made:
            self._nodes.append(node)
            return
        for name in sorted(taken):
            self._cast(name)
        ends = 1 if node.op_type in _FIRST_ONLY else len(node.input)
        for place, name in enumerate(node.input[:ends]):
            node.input[place] = half(name) if name in taken else name
        for place, name in enumerate(node.output):
            node.output[place] = half(name) if name in made else name
        self._nodes.append(node)
        self._halves.update(made)
        for name in made:
            if name in wanted:
                self._nodes.append(helper.make_node("Cast", [half(name)], [name], name=f"{name}/Cast", to=1))

    def _cast(self, name: str) -> None:
        """See to it that there is a half of the fp32 value `name`."""
        if name in self._halves:
            return
        self._halves.add(name)
        if name in self._constants:
            values = numpy_helper.to_array(self._constants[name]).astype(np.float16)
            self._constants[half(name)] = numpy_helper.from_array(values, half(name))
            return
        to = TensorProto.FLOAT16
        self._nodes.append(helper.make_node("Cast", [name], [half(name)], name=f"{half(name)}/Cast", to=to))


def half(name: str) -> str:
    """What the half of a value is called."""
    return f"{name}/fp16"


def halve(graph: Any, types: Mapping[str, int]) -> None:
    """Rewrite `graph` in place."""
    Halver(graph, types).run()
