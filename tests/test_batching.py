"""Any batch at import: what holds it is rewritten where that is proved, else kept with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.small_graphs import (
    FLAT,
    GEMM,
    JOINED,
    MIXED,
    POOLED,
    answers,
    bring,
    graph,
    node,
    pictures,
    shapes,
    weights,
)
from workers import batching, listing, onnxfile
from workers.errors import ModelError
from workers.options import ModelOptions
from workers.runner import Runner
from workers.settings import Settings, settings
from workers.trial import MOST

CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "reshape": (
        [POOLED, node("Reshape", ["pooled", "s"], "flat"), GEMM],
        {"s": shapes(1, 3), "w": weights(3, 2)},
    ),
    "reshape with a rest": (
        [POOLED, node("Reshape", ["pooled", "s"], "flat"), GEMM],
        {"s": shapes(1, -1), "w": weights(3, 2)},
    ),
    "reshape with allowzero": (
        [POOLED, node("Reshape", ["pooled", "s"], "flat", allowzero=1), GEMM],
        {"s": shapes(1, 3), "w": weights(3, 2)},
    ),
    "reshape that folds the batch away and back": (
        [
            node("Transpose", ["pictures"], "last", perm=[0, 2, 3, 1]),
            node("Reshape", ["last", "s"], "rows"),
            node("MatMul", ["rows", "w"], "mixed"),
            node("Reshape", ["mixed", "t"], "maps"),
            node("ReduceMax", ["maps"], "out", axes=[1], keepdims=0),
        ],
        {"s": shapes(64, 3), "w": weights(3, 2), "t": shapes(1, -1, 2)},
    ),
    "a shape put together": (
        [
            node("Shape", ["pictures"], "all"),
            node("Slice", ["all", "from", "to"], "sides"),
            node("Concat", ["one", "ch", "sides"], "s", axis=0),
            node("Reshape", ["pictures", "s"], "maps"),
            node("ReduceMax", ["maps"], "flat", axes=[2, 3], keepdims=0),
            GEMM,
        ],
        {"from": shapes(2), "to": shapes(4), "one": shapes(1), "ch": shapes(3), "w": weights(3, 2)},
    ),
    "a shape put together of numbers": (
        [
            node("Shape", ["pictures"], "all"),
            node("Slice", ["all", "from", "to"], "sides"),
            node("Unsqueeze", ["number", "axis"], "one"),
            node("Concat", ["one", "ch", "sides"], "s", axis=0),
            node("Reshape", ["pictures", "s"], "maps"),
            node("ReduceMax", ["maps"], "flat", axes=[2, 3], keepdims=0),
            GEMM,
        ],
        {
            "from": shapes(2),
            "to": shapes(4),
            "number": np.array(1, np.int64),
            "axis": shapes(0),
            "ch": shapes(3),
            "w": weights(3, 2),
        },
    ),
    "one shape for two": (
        [
            POOLED,
            node("Reshape", ["pooled", "s"], "flat"),
            node("Reshape", ["w", "s"], "row"),
            node("Mul", ["flat", "row"], "weighted"),
            node("Gemm", ["weighted", "v"], "out"),
        ],
        {"s": shapes(1, 3), "w": weights(3), "v": weights(3, 2)},
    ),
    "resize to a size": (
        [
            node("Resize", ["pictures", "", "", "s"], "large", mode="nearest"),
            node("GlobalMaxPool", ["large"], "pooled"),
            node("Flatten", ["pooled"], "flat"),
            GEMM,
        ],
        {"s": shapes(1, 3, 16, 24), "w": weights(3, 2)},
    ),
    "expand": (
        [
            POOLED,
            node("Expand", ["c", "s"], "spread"),
            node("Mul", ["pooled", "spread"], "weighted"),
            node("Flatten", ["weighted"], "flat"),
            GEMM,
        ],
        {"c": weights(1, 3, 1, 1), "s": shapes(1, 3, 1, 1), "w": weights(3, 2)},
    ),
}
#: As many as the batch of the export was.
OF_FOUR: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "reshape": ([POOLED, node("Reshape", ["pooled", "s"], "flat"), GEMM], {"s": shapes(4, 3), "w": weights(3, 2)}),
    "expand": (
        [*CASES["expand"][0]],
        {"c": weights(1, 3, 1, 1), "s": shapes(4, 3, 1, 1), "w": weights(3, 2)},
    ),
    "tile": (
        [
            POOLED,
            node("Tile", ["c", "s"], "spread"),
            node("Mul", ["pooled", "spread"], "weighted"),
            node("Flatten", ["weighted"], "flat"),
            GEMM,
        ],
        {"c": weights(1, 3, 1, 1), "s": shapes(4, 1, 1, 1), "w": weights(3, 2)},
    ),
    "constant of shape": (
        [
            POOLED,
            node("ConstantOfShape", ["s"], "zeros"),
            node("Sub", ["pooled", "zeros"], "same"),
            node("Flatten", ["same"], "flat"),
            GEMM,
        ],
        {"s": shapes(4, 3, 1, 1), "w": weights(3, 2)},
    ),
}


@pytest.mark.parametrize(
    ("case", "batch"),
    [pytest.param(case, 1, id=name) for name, case in CASES.items()]
    + [pytest.param(case, 4, id=f"{name}, of four") for name, case in OF_FOUR.items()],
)
def test_the_batch_is_freed(case: tuple[list[Any], dict[str, Any]], batch: int, tmp_path: Path) -> None:
    nodes, constants = case
    model = graph(nodes, constants, [batch, 2], batch=batch)
    onnx.checker.check_model(model)
    found = bring(model, tmp_path)
    assert found.notes == ("any batch: 3 pictures at once get the answers that each gets alone",)
    batch_of_five = pictures(5)
    alone = [answers(tmp_path / "small.onnx", batch_of_five[row : row + 1]) for row in range(5)]
    np.testing.assert_allclose(answers(found.path, batch_of_five), np.concatenate(alone), rtol=0, atol=1e-6)
    assert settings(onnxfile.metadata(onnx.load(found.path)), "") == Settings()
    onnx.checker.check_model(onnx.load(found.path), full_check=True)


HELD: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "pictures mixed with each other": (MIXED, {"w": weights(3, 2)}, "of its spread from the file's own"),
    "a constant row joined to every picture": (JOINED, {"c": weights(1, 3), "w": weights(6, 2)}, "'join'"),
    "the same answer to everything": ([*FLAT, GEMM], {"w": 0 * weights(3, 2)}, "it answers the same to every picture"),
}


@pytest.mark.parametrize(("nodes", "constants", "reason"), HELD.values(), ids=HELD)
def test_what_cannot_be_proved_takes_one_picture_at_a_time(
    nodes: list[Any], constants: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = bring(graph(nodes, constants, [1, 2]), tmp_path)
    assert found.notes[-1].startswith("at most 1 at once: ")
    model = onnx.load(found.path)
    said = settings(onnxfile.metadata(model), "")
    assert said.max_batch == 1
    assert reason in said.reason
    assert onnxfile.signature(model).input[0] == 1, "the file is as it was"
    runner = Runner.load(ModelOptions(name="m", source=found.path, max_batch=4), 1)
    assert runner.max_batch == 1
    (row,) = listing.listed(tmp_path / "store")
    assert (row["max_batch"], row["max_batch_reason"]) == (1, said.reason)


def test_an_open_batch_is_put_to_the_proof_too(tmp_path: Path) -> None:
    model = graph(MIXED, {"w": weights(3, 2)}, ["n", 2])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    found = bring(model, tmp_path)
    assert Runner.load(ModelOptions(name="m", source=found.path, max_batch=4), 1).max_batch == 1


def test_a_fixed_batch_that_cannot_be_freed_is_kept_where_its_rows_are_pictures(tmp_path: Path) -> None:
    same = np.repeat(weights(1, 3), 4, axis=0)
    found = bring(graph(JOINED, {"c": same, "w": weights(6, 2)}, [4, 2], batch=4), tmp_path)
    assert found.notes[-1].startswith("at most 4 at once: ")
    assert Runner.load(ModelOptions(name="m", source=found.path, max_batch=9), 1).max_batch == 4
    # Rows that differ by their place, not only by their picture, are no answers in a batch.
    placed = bring(graph(JOINED, {"c": weights(4, 3), "w": weights(6, 2)}, [4, 2], batch=4), tmp_path / "placed")
    assert Runner.load(ModelOptions(name="m", source=placed.path, max_batch=9), 1).max_batch == 1


@pytest.mark.parametrize(("batch", "most"), [(MOST, MOST), (MOST + 1, MOST)])
def test_of_a_large_fixed_batch_as_many_are_tried_as_a_proof_has(batch: int, most: int, tmp_path: Path) -> None:
    same = np.repeat(weights(1, 3), batch, axis=0)
    found = bring(graph(JOINED, {"c": same, "w": weights(6, 2)}, [batch, 2], batch=batch), tmp_path)
    said = settings(onnxfile.metadata(onnx.load(found.path)), "")
    assert said.max_batch == most
    assert said.reason.endswith(f"; proved with {MOST} of the {batch} that it takes") == (batch > MOST)
    runner = Runner.load(ModelOptions(name="m", source=found.path, max_batch=256), 1)
    alone = [answers(tmp_path / "small.onnx", pictures(most)[row : row + 1]) for row in range(most)]
    np.testing.assert_allclose(runner.engine.infer(pictures(most))[0], np.concatenate(alone), rtol=0, atol=1e-6)


def test_what_was_kept_once_is_tried_again(tmp_path: Path) -> None:
    """An import of what an import wrote: nothing of the first one's limit is left."""
    good = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    helper.set_model_props(good, Settings(max_batch=1, reason="old", confidence=0.4, iou=0.6).written())
    assert settings(onnxfile.metadata(onnx.load(bring(good, tmp_path).path)), "") == Settings(confidence=0.4, iou=0.6)


REFUSED: dict[str, tuple[list[Any], dict[str, Any], list[int | str], str]] = {
    "no factor": (
        [node("Pad", ["pictures", "p"], "odd"), node("Resize", ["odd", "", "", "s"], "out", name="r")],
        {"p": shapes(0, 0, 0, 0, 0, 0, -1, -1), "s": shapes(1, 3, 31, 7)},
        [1, 3, 31, 7],
        r"r: Resize from \[1, 3, 7, 7\] to \[1, 3, 31, 7\]: no factor gives exactly that",
    ),
    "resize of an unknown shape": (
        [node("Unheard", ["pictures"], "what", domain="else"), node("Resize", ["what", "", "", "s"], "out", name="r")],
        {"s": shapes(1, 3, 16, 16)},
        [1, 3, 16, 16],
        "r: Resize .* whose shape is not known",
    ),
    "dimensions of 0": (
        [
            node("Slice", ["pictures", "z", "z", "s"], "none"),
            node("Reshape", ["none", "t"], "out", name="r", allowzero=1),
        ],
        {"z": shapes(0), "s": shapes(1), "t": shapes(1, 0, 64)},
        [1, 0, 64],
        "r: Reshape .*dimensions of 0",
    ),
    "an output without the batch": (
        [node("Squeeze", ["pictures", "s"], "out")],
        {"s": shapes(0)},
        [3, 8, 8],
        r"output out is \[3, 8, 8\]: its first dimension is not the batch",
    ),
}


@pytest.mark.parametrize(("nodes", "constants", "output", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_holds_the_batch_is_named(
    nodes: list[Any], constants: dict[str, Any], output: list[int | str], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        batching.freed(graph(nodes, constants, output))
