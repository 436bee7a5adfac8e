"""Fuzz targets, one per file, and what feeds them: hypothesis in CI, `python -m tests.fuzz` for long runs.

A target module has `target(data: bytes) -> None`, which raises for what must not be, and `seeds() -> list[bytes]`.
"""

from typing import Final

#: The targets of `python -m tests.fuzz`.
TARGETS: Final = ("wire", "line", "model", "image", "joined", "draw", "outputs", "cfg", "tensors", "likeness")
