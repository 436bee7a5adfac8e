"""One model into another precision: `convert` is what every command that writes into the store calls."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, helper, version_converter

from workers.errors import ModelError
from workers.metadata import CALIBRATION, PRECISION
from workers.model import Hints, describe
from workers.onnxfile import data_inputs, metadata, signature
from workers.precision.calibration import inputs, pictures, ranges
from workers.precision.fp16 import halve
from workers.precision.int8 import quantise, quantised
from workers.precision.wanted import Wanted
from workers.upgrade import opset

#: Operators' version from which on DequantizeLinear has a scale per channel, and what is made of an older one.
_LEAST: Final = 13
_OPSET: Final = 17
_KINDS: Final = {TensorProto.FLOAT16: "fp16", TensorProto.INT8: "int8", TensorProto.UINT8: "int8"}


def convert(model: onnx.ModelProto, wanted: Wanted) -> onnx.ModelProto:
    """A copy of an fp32 model as `wanted`.

    Its inputs and outputs are the same, and stay fp32. Raises ModelError for a model that is of another precision
    already or has branches, and for a folder without pictures.
    """
    copy = _prepared(model)
    said: dict[str, str] = {PRECISION: wanted.precision or "fp32"}
    if wanted.precision == "fp16":
        halve(copy.graph, _types(copy))
    elif wanted.calibration is not None:
        files = pictures(wanted.calibration)
        _quantise(copy, files)
        said[CALIBRATION] = f"{len(files)} pictures"
    del copy.graph.value_info[:]
    helper.set_model_props(copy, metadata(model) | said)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def _quantise(model: onnx.ModelProto, files: list[Path]) -> None:
    looked = describe(signature(model), Hints(), "the model")
    names = sorted({node.input[0] for node in quantised(model.graph)})
    quantise(model.graph, ranges(model, names, lambda: inputs(files, looked)))


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with operators of today, constants as initializers, and no branches."""
    found = {_KINDS[one.data_type] for one in model.graph.initializer if one.data_type in _KINDS}
    found |= {"int8" for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    if found:
        raise ModelError(f"is of {' and '.join(sorted(found))} already: take the fp32 model that it was made from")
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise ModelError("has branches (If, Loop, Scan): export it without")
    copy = onnx.ModelProto()
    copy.CopyFrom(version_converter.convert_version(model, _OPSET) if opset(model) < _LEAST else model)
    _gather(copy)
    return copy


def _gather(model: onnx.ModelProto) -> None:
    """Constant nodes as initializers, which are no inputs."""
    graph = model.graph
    nodes = []
    for node in graph.node:
        tensors = [one.t for one in node.attribute if one.name == "value"] if node.op_type == "Constant" else []
        if not tensors:
            nodes.append(node)
            continue
        graph.initializer.append(tensors[0])
        graph.initializer[-1].name = node.output[0]
    kept = data_inputs(model)
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(kept)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {one.name: int(one.type.tensor_type.elem_type) for one in values}
    return types | {one.name: int(one.data_type) for one in graph.initializer}
