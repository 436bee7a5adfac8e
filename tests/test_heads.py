"""Which nodes of a graph stay fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.darknet.cases import NEW_COORDS
from tests.darknet.noise import weight_file
from tests.small_models import SMALL, small
from workers.precision.heads import heads
from workers.zoo.catalogue import find
from workers.zoo.cfg import parse
from workers.zoo.darknet import Detector
from workers.zoo.plan import plan


@pytest.mark.parametrize("name", SMALL)
def test_heads_are_what_the_zoo_calls_so(name: str) -> None:
    """By the names of the zoo's nodes; the Concat without a scope joins the levels."""
    nodes = small(name).graph.node
    scopes = {
        "yolov5n": ("model.24.", "output0/"),
        "yolov5n-seg": ("model.24.m.", *(f"model.24.{level}/" for level in range(3)), "model.24.proto.cv3", "output"),
        "yolov5n-cls": ("model.9.linear", "output0/"),
        "mobilenetv2": ("classifier", "output0/"),
    }[name]
    joined = [node.name for node in nodes if node.op_type == "Concat" and "/" not in node.name][-1:]
    expected = {node.name for node in nodes if node.name.startswith(scopes)}
    found = {nodes[place].name for place in heads(small(name).graph)}
    assert found == expected | set(joined if find(name).task != "classify" else [])
    weighted = [node.op_type for node in nodes if node.name in found and node.op_type in ("Conv", "Gemm")]
    assert len(weighted) == {"yolov5n": 3, "yolov5n-seg": 4}.get(name, 1)


def test_heads_are_what_darknet_decodes(tmp_path: Path) -> None:
    """The decoding is all of, and only, `*_yolo/` and `output/`; before it is one convolution for each head."""
    (tmp_path / "a.cfg").write_text(NEW_COORDS, encoding="utf-8")
    network = plan(parse(NEW_COORDS, ""))
    (tmp_path / "a.weights").write_bytes(weight_file(network, 1, np.ones(len(network.layers), np.float32)))
    nodes = Detector.load(tmp_path / "a.cfg", tmp_path / "a.weights").model({}).graph
    found = [nodes.node[place] for place in heads(nodes)]
    decoded = [node for node in found if "_yolo/" in node.name or node.name.startswith("output/")]
    rest = [node for node in found if node not in decoded]
    everything = [one.name for one in nodes.node if "_yolo/" in one.name or one.name.startswith("output/")]
    assert sorted(node.name for node in decoded) == sorted(everything)
    assert sum(node.op_type == "Conv" for node in rest) == len(network.heads)


def test_the_mean_of_a_distribution_belongs_to_the_decoding() -> None:
    """YOLOv8 decodes a side by a Softmax and a convolution of 16 fixed numbers that make one."""
    weights = {"inner": (8, 3, 3, 3), "head": (16, 8, 1, 1), "mean": (1, 16, 1, 1)}
    constants = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    nodes = [
        helper.make_node("Conv", ["images", "inner"], ["a"]),
        helper.make_node("Conv", ["a", "head"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "mean"], ["d"]),
    ]
    assert heads(helper.make_graph(nodes, "x", [], [], constants)) == {1, 2, 3}
