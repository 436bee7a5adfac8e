"""The proof that a rewritten model answers like its file: its memory."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import onnx

from tests.small_graphs import FLAT, GEMM, graph, weights
from workers.engine import Array
from workers.engine.onnx import OnnxEngine
from workers.model import Hints, describe
from workers.trial import refusal


class Watched:
    """An engine that knows of every batch that it was shown pictures of, and how many are in memory at once."""

    def __init__(self, engine: OnnxEngine) -> None:
        self.name, self.signature = engine.name, engine.signature
        self.most = 0
        self.batches: list[weakref.ref[Array]] = []
        self._engine = engine

    def infer(self, batch: Array) -> list[Array]:
        assert isinstance(batch.base, np.ndarray)
        if all(seen() is not batch.base for seen in self.batches):
            self.batches.append(weakref.ref(batch.base))
        self.most = max(self.most, sum(seen() is not None for seen in self.batches))
        return self._engine.infer(batch)

    def close(self) -> None:
        self._engine.close()


def test_one_batch_of_the_proof_is_in_memory_at_once(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2]), path)
    engine = Watched(OnnxEngine.load(path, threads=1))
    model = describe(engine.signature, Hints(names=("a", "b"), mean=(0,), std=(255,), fit="stretch"), "small")
    assert refusal(engine, path.read_bytes(), model, count=1) == ""
    assert (len(engine.batches), engine.most) == (2, 1)
