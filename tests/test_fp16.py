"""fp16: what is rewritten and what not, and that it finds what the fp32 model finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.small_models import EXPORTS, PHOTOS, SMALL, run, small
from tests.stepwise import stepwise
from workers import image
from workers.engine.onnx import OnnxEngine
from workers.metadata import PRECISION
from workers.options import ModelOptions
from workers.precision.conversion import convert
from workers.precision.heads import heads
from workers.precision.wanted import Wanted
from workers.runner import Runner


def types(model: Any) -> dict[str, int]:
    """The element type of every value of a model."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    told = {one.name: one.type.tensor_type.elem_type for one in values}
    return told | {one.name: one.data_type for one in graph.initializer}


@pytest.mark.parametrize("name", SMALL)
def test_fp16_ends_before_the_heads(name: str) -> None:
    model = small(name)
    made = convert(model, Wanted("fp16"))
    stay = {model.graph.node[place].name for place in heads(model.graph)}
    told = types(made)
    for node in made.graph.node:
        kinds = {told[one] for one in (*node.input, *node.output) if one} & {TensorProto.FLOAT, TensorProto.FLOAT16}
        if node.name in stay:
            assert kinds == {TensorProto.FLOAT}, node.name
        elif node.op_type in ("Conv", "Gemm"):
            assert kinds == {TensorProto.FLOAT16}, node.name
    casts = [node for node in made.graph.node if node.op_type == "Cast"]
    assert 2 <= len(casts) <= 1 + 4, "one after the input, one before each head"
    ends = [*made.graph.input, *made.graph.output]
    assert {one.type.tensor_type.elem_type for one in ends} == {TensorProto.FLOAT}
    assert [one.name for one in ends] == [one.name for one in (*model.graph.input, *model.graph.output)]


def test_constants_beyond_fp16_keep_their_nodes_fp32() -> None:
    weights = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "weights")
    large = numpy_helper.from_array(np.array(1e6, np.float32), "large")
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["a"]),
        helper.make_node("Mul", ["a", "large"], ["b"]),
        helper.make_node("Div", ["b", "large"], ["c"]),
        helper.make_node("Conv", ["c", "weights"], ["d"]),
    ]
    shape: list[str | int | None] = ["batch", 4, 8, 8]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("images", "d")]
    graph = helper.make_graph(nodes, "x", ends[0], ends[1], [weights, large])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    batch = np.random.default_rng(0).random((1, 4, 8, 8), np.float32)
    made = stepwise(convert(model, Wanted("fp16")), batch)[0]
    np.testing.assert_allclose(made, run(model, batch)[0], rtol=2e-3)


@pytest.mark.parametrize("name", EXPORTS)
def test_fp16_finds_what_fp32_finds(name: str, testdata: Path) -> None:
    path = testdata / "models" / f"{name}.onnx"
    runner, made = Runner.load(ModelOptions(name=name, source=path), 1), convert(onnx.load(path), Wanted("fp16"))
    for photo in PHOTOS:
        picture = image.load(testdata / "images" / photo)
        batch = np.empty((1, 3, *runner.model.size), np.float32)
        placement = runner.prepare(picture, batch[0])
        whole = runner.interpret(runner.engine.infer(batch), 0, placement)["detections"]
        halves = runner.interpret(stepwise(made, batch), 0, placement)["detections"]
        assert [one["name"] for one in halves] == [one["name"] for one in whole]
        for one, other in zip(whole, halves, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=0.005)
            assert one["box"] == pytest.approx(other["box"], abs=0.5)


def test_a_file_whose_input_is_fp16_is_of_fp16(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT16, [1, 3, 4, 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, 4, 4])
    node = helper.make_node("Cast", ["images"], ["out"], to=TensorProto.FLOAT)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph([node], "x", [images], [out]), opset_imports=opsets, ir_version=8)
    (tmp_path / "half.onnx").write_bytes(model.SerializeToString())
    engine = OnnxEngine.load(tmp_path / "half.onnx", threads=1)
    assert engine.signature.metadata[PRECISION] == "fp16"
    assert engine.infer(np.ones((1, 3, 4, 4), np.float32))[0].dtype == np.float32
