"""`likeness.matched`: the bytes are an ONNX file that claims to be a MobileNetV2."""

from __future__ import annotations

from functools import cache
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from tests.fuzz import corpus
from workers.errors import ModelError
from workers.zoo.catalogue import find
from workers.zoo.likeness import matched


def seeds() -> list[bytes]:
    weights = TensorProto(name="w", dims=[2, 3, 1, 1], data_type=TensorProto.FLOAT, raw_data=bytes(24))
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], pads=[0, 0, 0, 0]),
        helper.make_node("Concat", ["a", "a"], ["b"], axis=1),
        helper.make_node("Add", ["b", "b"], ["c"]),
        helper.make_node("Constant", [], ["d"], value=weights),
        helper.make_node("Conv", ["c", "d"], ["e"], group=2),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph(nodes, "g", [images], [], [weights])
    seed: bytes = helper.make_model(graph).SerializeToString()
    nodes[0].input[0] = "e"
    circle: bytes = helper.make_model(helper.make_graph(nodes, "g", [images], [], [weights])).SerializeToString()
    return [seed, circle, *corpus.files("likeness")]


@cache
def ours() -> Any:
    return find("mobilenetv2").build((32, 32), 2).graph.draft().graph


def target(data: bytes) -> None:
    """Nothing that small has the weights: a ModelError, soon."""
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        return
    try:
        matched(ours(), model.graph)
    except ModelError as error:
        assert len(str(error)) < 500, error
        return
    raise AssertionError("a match")
