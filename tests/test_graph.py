"""The writer of ONNX graphs: what it says about shapes is what ONNX infers, names are unique, the batch is open."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from workers.errors import ModelError
from workers.zoo.graph import Graph
from workers.zoo.writer import Blank, Tensor

RNG = np.random.default_rng(3)


def weights(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def everything() -> tuple[Graph, list[Tensor]]:
    """A graph with every kind of node, and all of its tensors."""
    graph = Graph("everything")
    image = graph.input("images", 4, 12, 8)
    made = [graph.conv(image, weights(8, 2, 3, 3), weights(8), stride=2, padding=1, groups=2)]
    made += [graph.conv(made[0], weights(8, 8, 2, 2), padding=(0, 1, 1, 0))]
    with graph.scope("activations"):
        made += [graph.relu(made[0]), graph.relu6(made[0]), graph.leaky(made[0], 0.1), graph.sigmoid(made[0])]
        made += [graph.swish(made[0]), graph.mish(made[0]), graph.exp(made[0])]
    made += [graph.maxpool(made[0], 2, padding=(0, 0, 1, 1)), graph.maxpool(made[0], 2, stride=2)]
    made += [graph.resize(made[-1], 2), graph.average(made[-1])]
    made += [graph.plus(made[0], made[2]), graph.mul(made[0], weights(1, 8, 1, 1)), graph.plus(made[0], 2.0)]
    made += [graph.concat(made[:3]), graph.concat(made[:2], axis=2), graph.slice(made[0], 2, 5)]
    made += [graph.reshape(made[0], 48, 4), graph.transpose(made[0], 2, 0, 1)]
    flat = graph.reshape(graph.average(made[0]), 8)
    made += [flat, graph.gemm(flat, weights(5, 8), weights(5))]
    graph.output(made[-1], "output")
    return graph, made


def test_shapes_are_those_that_onnx_infers() -> None:
    graph, made = everything()
    model = onnx.shape_inference.infer_shapes(graph.model({}), check_type=True, strict_mode=True, data_prop=True)
    inferred = {
        info.name: [dimension.dim_value for dimension in info.type.tensor_type.shape.dim]
        for info in (*model.graph.value_info, *model.graph.output)
    }
    for tensor in made:
        assert inferred[tensor.name] == [0, *tensor.shape], tensor  # 0: open


def test_runs_at_any_batch_with_equal_rows() -> None:
    graph, _ = everything()
    model = graph.model({"task": "classify"})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = RNG.random((3, 4, 12, 8), np.float32)
    together = session.run(None, {"images": images})[0]
    single = [session.run(None, {"images": images[row : row + 1]})[0] for row in range(3)]
    np.testing.assert_allclose(together, np.concatenate(single), rtol=1e-5, atol=1e-6)
    assert session.get_modelmeta().custom_metadata_map == {"task": "classify"}


def test_names_are_unique_and_carry_their_scope() -> None:
    model = everything()[0].model({})
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) and all(names)
    values = [output for node in model.graph.node for output in node.output]
    values += [constant.name for constant in model.graph.initializer]
    assert len(set(values)) == len(values)
    assert "activations/Relu" in names


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda graph, x: graph.conv(x, weights(8, 3, 1, 1)), "weights"),
        (lambda graph, x: graph.conv(x, weights(8, 4, 9, 9)), "larger than the padded map"),
        (lambda graph, x: graph.plus(x, graph.slice(x, 0, 2)), "shapes differ"),
        (lambda graph, x: graph.concat([x, graph.maxpool(x, 2, stride=2)]), "cannot be joined"),
        (lambda graph, x: graph.slice(x, 2, 5), "no part of dimension 0"),
        (lambda graph, x: graph.reshape(x, 3, 3), "cannot become"),
        (lambda graph, x: graph.gemm(x, weights(2, 3), weights(2)), "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(build: Any, words: str) -> None:
    graph = Graph("wrong")
    with pytest.raises(ModelError, match=words):
        build(graph, graph.input("images", 4, 6, 6))


def test_weights_can_come_later_and_must_come() -> None:
    graph = Graph("later")
    made = graph.conv(graph.input("images", 3, 4, 4), Blank((2, 3, 1, 1)), Blank((2,)))
    graph.output(made, "output")
    assert [len(one.raw_data) for one in graph.draft().graph.initializer] == [0, 0]
    with pytest.raises(onnx.checker.ValidationError):
        graph.model({})
    with pytest.raises(ModelError, match=r"weight has the shape \(2, 3, 1, 1\), not \(3, 2, 1, 1\)"):
        graph.fill("weight", weights(3, 2, 1, 1))
    graph.fill("weight", weights(2, 3, 1, 1))
    graph.fill("bias", weights(2))
    graph.model({})
