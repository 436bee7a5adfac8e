"""fp16 answers in fp32 arithmetic: rounded as numpy rounds, and as each node alone does that is given fp16."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ops.bench.rounding import rounded
from tests.stepwise import step
from workers.precision.conversion import convert
from workers.precision.wanted import Wanted
from workers.zoo.catalogue import find
from workers.zoo.making import Order, make


def test_numbers_are_rounded_as_numpy_rounds_them() -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n"])
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["x"], ["out"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "x", [images], [out])
    model = rounded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=20_000) * scale for scale in (1e-6, 1e-3, 1, 300, 20_000)])
    values = np.append(values, [0, 65_504, 65_519, 65_521, -70_000, 2049, 2051]).astype("f4")
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    made = watched(model, ["out"], values)["out"]
    normal = np.abs(values) >= 2.0**-14
    assert np.array_equal(made[normal], expected[normal])
    # Below, where fp16 has fewer digits, it is rounded twice.
    assert np.abs(made[~normal] - expected[~normal]).max() <= 2.0**-24


@pytest.mark.parametrize("name", ["mobilenetv2", "yolov5n-seg"])
def test_every_node_answers_as_it_does_alone(name: str) -> None:
    """Given the same fp16; but for the last digit where a sum lies in the middle between two numbers."""
    half = convert(make(Order(kind=find(name), size=(64, 64), classes=3)), Wanted("fp16"))
    batch = np.random.default_rng(1).random((1, 3, 64, 64), np.float32)
    names = [name for node in half.graph.node for name in node.output]
    answers = watched(rounded(half), names, batch)
    values = {one.name: numpy_helper.to_array(one) for one in half.graph.initializer} | {"images": batch}
    for node in half.graph.node:
        alone = step(node, values, half)
        for name, value in alone.items():
            others = int((answers[name] != value.astype(np.float32)).sum())
            assert value.dtype != np.float16 or others <= max(2, value.size // 1000), (node.op_type, name)
            np.testing.assert_allclose(answers[name], value.astype(np.float32), rtol=1e-3, atol=1e-6)
            values[name] = answers[name].astype(value.dtype)
    assert TensorProto.FLOAT16 not in {one.data_type for one in rounded(half).graph.initializer}


def watched(model: Any, names: list[str], batch: Any) -> dict[str, Any]:
    """Those values of a run of the model."""
    told = {one.name for one in model.graph.output}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in told)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"images": batch}), strict=True))
