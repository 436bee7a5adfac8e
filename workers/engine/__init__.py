"""Engines: what runs a model. One module per engine; all have the seam described here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
#: A tensor's shape; None where it is not fixed.
Shape: TypeAlias = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a loaded model says about itself: shapes, and the metadata that its exporter wrote."""

    input: Shape
    outputs: tuple[Shape, ...]
    sha256: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """A loaded model. Used by one thread at a time, after `load`-like factories of each engine."""

    #: "onnxruntime (CPU, 2 threads)": what a person is told.
    name: str
    signature: Signature

    def infer(self, batch: Array) -> list[Array]:
        """Run float32 [n, channels, height, width]; every output has n rows first.

        The arrays returned are the engine's own and are overwritten by the next call. Raises EngineError.
        """
        ...

    def close(self) -> None:
        """Free what the model holds; `infer` must not be called again."""
        ...
