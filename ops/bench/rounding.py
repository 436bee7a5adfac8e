"""An fp16 model in fp32 arithmetic that rounds every result as fp16 does: what a GPU answers, seen on a CPU.

onnxruntime has hardly a kernel of fp16 for CPUs: it takes the casts out, computes in fp32, and rounds nothing but
weights. Sums inside of a layer are fp32 here, as tensor cores have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workers.precision.rewriting import rewrite

#: x * SPLIT - (x * SPLIT - x) has the 11 digits of fp16 (Veltkamp): 24 of fp32 less 13.
_SPLIT: Final = float(2**13 + 1)
#: What times UP is infinite is so in fp16; DOWN takes UP back.
_UP: Final = float(2.0**112)
_DOWN: Final = float(2.0**-112)
#: fp16 has nothing finer than 2^-24; nor has fp32 beside three quarters.
_COARSE: Final = 0.75
_CONSTANTS: Final = {"round/split": _SPLIT, "round/coarse": _COARSE, "round/up": _UP, "round/down": _DOWN}


def rounded(model: Any) -> Any:
    """The fp32 onnx.ModelProto that answers as the fp16 `model` does, whose ends are fp32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    halves = _halves(copy)
    nodes = [made for node in graph.node for made in _rounded(node, halves)]
    constants = {one.name: _full(one) for one in graph.initializer}
    for name, value in _CONSTANTS.items():
        constants[name] = numpy_helper.from_array(np.array(value, np.float32), name)
    del graph.value_info[:]
    rewrite(graph, nodes, constants)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def _halves(model: Any) -> set[str]:
    """The values of fp16."""
    values = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    return {one.name for one in values if one.type.tensor_type.elem_type == TensorProto.FLOAT16}


def _full(tensor: Any) -> Any:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _rounded(node: Any, halves: set[str]) -> Iterator[Any]:
    """The node, and after it the rounding of what it makes in fp16."""
    made = [name for name in node.output if name in halves]
    if node.op_type == "Cast":
        if made:
            yield from _rounding(node.input[0], made[0])
        else:
            yield helper.make_node("Identity", node.input, node.output, name=node.name)
        return
    for place, name in enumerate(node.output):
        if name in made:
            node.output[place] = f"{name}/exact"
    yield node
    for name in made:
        yield from _rounding(f"{name}/exact", name)


def _rounding(source: str, target: str) -> Iterator[Any]:
    """Nodes that make `target`, the fp16 nearest to `source`."""
    steps = [
        ("Mul", [source, "round/split"], f"{target}/a"),
        ("Sub", [f"{target}/a", source], f"{target}/b"),
        ("Sub", [f"{target}/a", f"{target}/b"], f"{target}/c"),
        ("Add", [f"{target}/c", "round/coarse"], f"{target}/d"),
        ("Sub", [f"{target}/d", "round/coarse"], f"{target}/e"),
        ("Mul", [f"{target}/e", "round/up"], f"{target}/f"),
        ("Mul", [f"{target}/f", "round/down"], target),
    ]
    for kind, names, output in steps:
        yield helper.make_node(kind, names, [output], name=f"{output}/{kind}")
