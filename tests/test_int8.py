"""int8: what is rewritten and what not, how far its ranges reach, and that it finds what the fp32 model finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.small_models import EXPORTS, PHOTOS, SMALL, small
from workers import image
from workers.options import ModelOptions
from workers.precision.calibration import histogram
from workers.precision.conversion import convert
from workers.precision.entropy import BINS, threshold
from workers.precision.heads import heads
from workers.precision.int8 import rounded
from workers.precision.wanted import Wanted
from workers.runner import Runner


@pytest.mark.parametrize("name", SMALL)
def test_int8_is_what_tensorrt_takes(name: str, drawn: Path) -> None:
    model = small(name)
    made = convert(model, Wanted("int8", drawn))
    stay = {model.graph.node[place].name for place in heads(model.graph)}
    constants = {one.name: numpy_helper.to_array(one) for one in made.graph.initializer}
    makers = {node.output[0]: node for node in made.graph.node}
    quantised = 0
    for node in made.graph.node:
        sources = [makers.get(one) for one in node.input]
        behind = [one is not None and one.op_type == "DequantizeLinear" for one in sources]
        if node.op_type in ("Conv", "Gemm") and node.name not in stay:
            assert behind[:2] == [True, True] and not any(behind[2:]), node.name
            quantised += 1
        elif node.op_type != "DequantizeLinear":
            assert not any(behind), f"{node.name} looks at int8"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not constants[node.input[2]].any() and constants[node.input[2]].dtype == np.int8
    assert quantised == sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node) - len(
        [node for node in model.graph.node if node.name in stay and node.op_type in ("Conv", "Gemm")]
    )
    assert not any(one.dtype == np.int32 for one in constants.values())
    for node in made.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            small_weights, scales = constants[node.input[0]], constants[node.input[1]]
            axis = next(one.i for one in node.attribute if one.name == "axis")
            assert scales.shape == (small_weights.shape[axis],) and small_weights.dtype == np.int8
            assert small_weights.min() >= -127


def test_weights_are_rounded_channel_by_channel() -> None:
    weights = np.array([[0.5, -1.0], [100.0, 3.0], [0.0, 0.0]], np.float32)
    for axis, table in ((0, weights), (1, weights.T)):
        made, scales = rounded(np.ascontiguousarray(table), axis)
        again = made * scales.reshape((-1, 1) if axis == 0 else (1, -1))
        assert np.all(np.abs(again - table) <= scales.reshape((-1, 1) if axis == 0 else (1, -1)) / 2 + 1e-6)


def test_a_single_inner_layer_looks_at_the_picture_alone(drawn: Path) -> None:
    """Then no value inside of the model has a range to learn."""
    weights = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "weights")
    last = numpy_helper.from_array(np.ones((3, 2), np.float32), "last")
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "last"], ["d"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    scores = helper.make_tensor_value_info("d", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph(nodes, "x", [images], [scores], [weights, last])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"task": "classify", "names": "['a', 'b']"})
    made = convert(model, Wanted("int8", drawn))
    assert [node.op_type for node in made.graph.node].count("QuantizeLinear") == 1


def test_a_few_outliers_are_clipped_and_no_more() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=2_000_000)).astype(np.float32)
    values[:3] = 100.0
    reach = threshold(histogram(values, 100.0), 100.0)
    assert np.quantile(values, 1 - 1e-5) <= reach < 10


def test_an_even_spread_is_not_clipped() -> None:
    assert threshold(np.ones(BINS), 7.0) == pytest.approx(7.0)
    assert threshold(np.zeros(BINS), 0.0) == 0.0


def test_with_as_many_bins_as_steps_nothing_is_clipped() -> None:
    assert threshold(np.arange(128, 0, -1.0), 3.0) == 3.0


@pytest.mark.parametrize("name", EXPORTS)
def test_int8_finds_what_fp32_finds(name: str, testdata: Path, tmp_path: Path) -> None:
    path, target = testdata / "models" / f"{name}.onnx", tmp_path / "int8.onnx"
    target.write_bytes(convert(onnx.load(path), Wanted("int8", testdata / "images")).SerializeToString())
    whole, small = (Runner.load(ModelOptions(name=name, source=one), 1) for one in (path, target))
    for photo in PHOTOS:
        picture = image.load(testdata / "images" / photo)
        found = small.look(picture)["detections"]
        for one in whole.look(picture)["detections"]:
            if one["score"] >= 0.5:
                same = [other for other in found if other["name"] == one["name"]]
                assert max((overlap(one["box"], other["box"]) for other in same), default=0.0) >= 0.8, (photo, one)


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)
