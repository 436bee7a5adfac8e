"""Small graphs for tests of imports: classifiers of two classes for pictures of 8 x 8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workers import exports
from workers.engine.onnx import OnnxEngine
from workers.exports import Order
from workers.model import Hints

Array = np.ndarray[Any, Any]
SIDE = 8


def node(kind: str, inputs: Sequence[str], output: str, name: str = "", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [output], name=name, **attributes)


def graph(
    nodes: Sequence[Any], constants: dict[str, Any], output: Sequence[int | str], *, batch: int = 1, opset: int = 17
) -> Any:
    """pictures [batch, 3, 8, 8] -> `out`, of the shape `output`."""
    pictures = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, output)
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(list(nodes), "small", [pictures], [out], weights),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    model.ir_version = 8
    return model


def shapes(*values: int) -> Array:
    return np.array(values, np.int64)


def weights(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


#: Classifiers of two classes, each with one thing that holds the batch.
POOLED = node("GlobalAveragePool", ["pictures"], "pooled")
GEMM = node("Gemm", ["flat", "w"], "out")


def bring(model: Any, folder: Path, **said: Any) -> exports.Exported:
    folder.mkdir(exist_ok=True)
    path = folder / "small.onnx"
    onnx.save(model, path)
    hints = Hints(names=("a", "b"), mean=(0,), std=(255,), fit="stretch")
    return exports.bring(Order(path=path, name="small", hints=hints, **said), folder / "store")


def answers(path: Path, pictures: Array) -> Array:
    return OnnxEngine.load(path, threads=1).infer(pictures)[0].copy()


def pictures(count: int) -> Array:
    return np.random.default_rng(2).random((count, 3, SIDE, SIDE), np.float32)


#: Models that take one picture at a time, and what says so.
FLAT = [POOLED, node("Flatten", ["pooled"], "flat")]
MIXED = [
    *FLAT,
    node("ReduceMean", ["flat"], "mean", axes=[0]),
    node("Add", ["flat", "mean"], "sum"),
    node("Gemm", ["sum", "w"], "out"),
]
JOINED = [*FLAT, node("Concat", ["flat", "c"], "long", axis=1, name="join"), node("Gemm", ["long", "w"], "out")]
