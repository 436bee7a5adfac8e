"""Classifiers that end in a sigmoid are refused, and those that end in logits or a softmax are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ops import facts
from tests.small_graphs import FLAT, bring, graph, node, shapes, weights
from workers import describe, shipped, sigmoid
from workers.errors import ModelError
from workers.model import Hints
from workers.options import ModelOptions
from workers.runner import Runner
from workers.zoo.catalogue import find
from workers.zoo.making import Order, make

LOGITS = [*FLAT, node("Gemm", ["flat", "w"], "logits")]
HINTS = Hints(names=("a", "b"), mean=(0,), std=(255,), fit="stretch")
#: What follows the logits of a classifier, by what it ends in.
SIGMOIDS = {
    "Sigmoid": [node("Sigmoid", ["logits"], "out")],
    "HardSigmoid": [node("HardSigmoid", ["logits"], "scores"), node("Identity", ["scores"], "out")],
    "Sigmoid, reshaped": [
        node("Sigmoid", ["logits"], "scores"),
        node("Cast", ["scores"], "cast", to=1),
        node("Reshape", ["cast", "shape"], "out"),
    ],
}
OTHERS = {
    "logits": [node("Identity", ["logits"], "out")],
    "softmax": [node("Softmax", ["logits"], "out")],
    "small logits": [node("Sigmoid", ["logits"], "gate"), node("Mul", ["gate", "half"], "out")],
}


def classifier(end: Sequence[Any]) -> Any:
    constants = {"w": weights(3, 2), "shape": shapes(1, 2), "half": np.float32(0.5)}
    used = {name for one in [*LOGITS, *end] for name in one.input}
    return graph([*LOGITS, *end], {name: value for name, value in constants.items() if name in used}, [1, 2])


def saved(end: Sequence[Any], folder: Path) -> ModelOptions:
    path = folder / "scores.onnx"
    onnx.save(classifier(end), path)
    return ModelOptions(name="scores", source=path, hints=HINTS)


@pytest.mark.parametrize("end", SIGMOIDS.values(), ids=SIGMOIDS)
def test_a_sigmoid_is_refused_wherever_a_model_is_taken(end: Sequence[Any], tmp_path: Path) -> None:
    options = saved(end, tmp_path)
    runner = Runner.load(options, 1)
    with pytest.raises(ModelError, match=r"scores\.onnx: ends in a .*Sigmoid: .* with a softmax or with logits"):
        runner.warm_up()
    with pytest.raises(ModelError, match="Sigmoid"):
        bring(classifier(end), tmp_path / "imported")
    with pytest.raises(ModelError, match="Sigmoid"):
        describe.describe(tmp_path / "scores.onnx", tmp_path / "out.onnx", HINTS)
    assert not (tmp_path / "out.onnx").exists()


def test_a_line_is_told_before_it_starts(tmp_path: Path) -> None:
    said = {"names": "['a', 'b']", "task": "classify"}
    model = classifier(SIGMOIDS["Sigmoid"])
    onnx.helper.set_model_props(model, said)
    onnx.save(model, tmp_path / "m.onnx")
    assert "Sigmoid" in facts.look(ModelOptions(name="m", source=tmp_path / "m.onnx")).refused


@pytest.mark.parametrize("end", OTHERS.values(), ids=OTHERS)
def test_logits_and_softmax_are_taken(end: Sequence[Any], tmp_path: Path) -> None:
    runner = Runner.load(saved(end, tmp_path), 1)
    runner.warm_up()
    assert runner.probabilities == any(one.op_type == "Softmax" for one in end)
    assert bring(classifier(end), tmp_path / "imported").model.names == ("a", "b")


@pytest.mark.parametrize("name", ["yolov5n-cls", "mobilenetv2"])
@pytest.mark.parametrize("classes", [2, 1000])
def test_random_weights_of_the_zoo_are_taken(name: str, classes: int, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    onnx.save(make(Order(kind=find(name), size=(64, 64), classes=classes)), path)
    Runner.load(ModelOptions(name=name, source=path), 1).warm_up()
    assert sigmoid.last(onnx.load(path)) not in ("Sigmoid", "HardSigmoid")


def test_the_demo_classifier_is_taken() -> None:
    path = shipped.path("demo-cls")
    assert path is not None
    runner = Runner.load(ModelOptions(name="demo-cls", source=path), 1)
    runner.warm_up()
    runner.refuse_sigmoid()


def test_a_circle_of_a_broken_file_ends() -> None:
    model = graph([node("Identity", ["b"], "out"), node("Identity", ["out"], "b")], {}, [1, 2])
    assert sigmoid.last(model) == ""
