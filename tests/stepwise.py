"""Runs an ONNX model node by node, so that each fp16 result is rounded to fp16 before the next node sees it.

onnxruntime has hardly a kernel of fp16 for CPUs: over a whole graph it computes in fp32, takes the casts out, and
rounds nothing but weights. What a GPU would answer is seen only this way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper


def stepwise(model: Any, batch: Any) -> list[Any]:
    """The outputs of `model` for one input."""
    values = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    values[model.graph.input[0].name] = batch
    for node in model.graph.node:
        values |= step(node, values, model)
    return [values[one.name] for one in model.graph.output]


def step(node: Any, values: dict[str, Any], model: Any) -> dict[str, Any]:
    """What one node makes of `values`, by name."""
    names = list(dict.fromkeys(name for name in node.input if name))
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape)
        for name in names
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    alone = helper.make_model(
        helper.make_graph([node], "step", inputs, outputs), opset_imports=model.opset_import, ir_version=8
    )
    session = onnxruntime.InferenceSession(alone.SerializeToString(), providers=["CPUExecutionProvider"])
    made = session.run(None, {name: np.asarray(values[name]) for name in names})
    return dict(zip((name for name in node.output if name), made, strict=True))
