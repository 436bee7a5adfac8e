"""`workers models`: what the list tells of a file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from tests.small_graphs import (
    FLAT,
    GEMM,
    bring,
    graph,
    node,
    weights,
)
from workers import listing, tiny


def test_random_weights_stay_known_as_such(tmp_path: Path) -> None:
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    helper.set_model_props(model, {"gongwei.weights": "random"})
    assert bring(model, tmp_path).model.random
    (row,) = listing.listed(tmp_path / "store")
    assert row["weights"] == "random"


def test_the_list_tells_what_a_file_is_and_what_it_cannot_tell(tmp_path: Path) -> None:
    half = graph(
        [node("Cast", ["w"], "full", to=TensorProto.FLOAT), *FLAT, node("Gemm", ["flat", "full"], "out")],
        {"w": weights(3, 2).astype(np.float16)},
        [1, 2],
    )
    bring(half, tmp_path)
    kept = tmp_path / "store"
    (kept / "broken.onnx").write_bytes(b"no model")
    onnx.save(half, kept / "raw.onnx")
    onnx.save(tiny.build(), kept / "two.onnx")
    flat = tiny.build()
    del flat.graph.input[0].type.tensor_type.shape.dim[3]
    onnx.save(flat, kept / "flat.onnx")
    (kept / "No name.onnx").touch()
    (kept / "notes.txt").touch()
    broken, flat_row, raw, small, two = listing.listed(kept)
    assert "needs one input [batch, 3, height, width]" in flat_row["error"]
    assert (two["task"], two["classes"], two["max_batch"], two["licence"]) == ("detect", 4, None, "")
    assert "cannot be read as ONNX" in broken["error"]
    assert "--mean" in raw["error"]
    told = {key: small[key] for key in ("task", "size", "classes", "max_batch", "precision", "weights", "source")}
    assert told == {
        "task": "classify",
        "size": [8, 8],
        "classes": 2,
        "max_batch": None,
        "precision": "fp16",
        "weights": "file's",
        "source": "small.onnx",
    }
    assert small["bytes"] == (kept / "small.onnx").stat().st_size
    assert listing.table([broken, raw, small, two]).row_count == 4
    assert list(listing.listed(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("width", [80, 200])
def test_what_a_model_computes_in_is_never_cut(width: int, tmp_path: Path) -> None:
    """Where a model is from is, on a narrow terminal."""
    bring(graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2]), tmp_path)
    (tmp_path / "store" / "small.onnx").rename(tmp_path / "store" / "shufflenet-v2-12-int8.onnx")
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(
        listing.table([row | {"source": "one.cfg, one.weights"} for row in listing.listed(tmp_path / "store")])
    )
    header, row = console.export_text().splitlines()[:2]
    assert header.split()[:7] == ["name", "task", "input", "classes", "batch", "precision", "weights"]
    assert row.split()[:7] == ["shufflenet-v2-12-int8", "classify", "8x8", "2", "any", "fp32", "file's"]
