"""Files that are tidied at import: nodes sorted and named, opset and IR version of today."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.small_graphs import (
    FLAT,
    GEMM,
    bring,
    graph,
    node,
    weights,
)
from workers import upgrade
from workers.errors import ModelError


def test_nodes_are_sorted_named_and_weights_are_no_inputs(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["flat", "w", "c"], "out"),
        node("Flatten", ["pooled"], "flat", "same"),
        node("Relu", ["pictures"], "r", "same"),
        node("GlobalAveragePool", ["r"], "pooled", "Gemm_1"),
    ]
    model = graph(nodes, {"w": weights(3, 2), "c": np.zeros(2, np.float32)}, [1, 2], opset=9)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2]))
    model.ir_version = 3
    found = bring(model, tmp_path)
    assert found.notes[:2] == ("nodes sorted", "opset 9 raised to 17")
    written = onnx.load(found.path)
    onnx.checker.check_model(written, full_check=True)
    assert [one.op_type for one in written.graph.node] == ["Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    names = [one.name for one in written.graph.node]
    assert len(set(names)) == 4
    assert all(names)
    assert [one.name for one in written.graph.input] == ["pictures"]
    assert (upgrade.opset(written), written.ir_version) == (17, 8)


def test_what_a_branch_needs_comes_before_it() -> None:
    branch = helper.make_graph(
        [node("Identity", ["late"], "chosen")],
        "b",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("If", ["yes"], "out", then_branch=branch, else_branch=branch),
        node("Relu", ["pictures"], "late"),
    ]
    tidy = upgrade.tidied(graph(nodes, {"yes": np.array(True)}, [1, 3, 8, 8]))
    assert [one.op_type for one in tidy.graph.node] == ["Relu", "If"]


def test_a_circle_is_refused() -> None:
    nodes = [node("Add", ["pictures", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["b"], "out")]
    with pytest.raises(ModelError, match="in a circle"):
        upgrade.tidied(graph(nodes, {}, [1, 3, 8, 8]))


def test_a_sorted_graph_stays_as_it_is_and_late_versions_are_lowered() -> None:
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2], opset=19)
    model.ir_version = 13
    tidy = upgrade.tidied(model)
    assert [one.op_type for one in tidy.graph.node] == [one.op_type for one in model.graph.node]
    assert tidy.ir_version == upgrade.LATEST_IR
    assert upgrade.raised(tidy) is tidy


def test_an_opset_that_cannot_be_raised_is_kept_with_its_reason(tmp_path: Path) -> None:
    """Between ThresholdedRelu's versions 1 and 10, onnx knows no way."""
    nodes = [node("ThresholdedRelu", ["pictures"], "r", alpha=0.1), node("GlobalAveragePool", ["r"], "pooled"),
             node("Flatten", ["pooled"], "flat"), node("Gemm", ["flat", "w", "c"], "out")]  # fmt: skip
    constants = {"w": weights(3, 2), "c": np.zeros(2, np.float32)}
    found = bring(graph(nodes, constants, [1, 2], opset=9), tmp_path)
    assert found.notes[0].startswith("opset 9 kept, so that later steps (fp16, int8) may refuse it: ")
    assert found.notes[1].startswith("any batch")
    assert upgrade.opset(onnx.load(found.path)) == 9
