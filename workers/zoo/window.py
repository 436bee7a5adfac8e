"""A window that slides over a map: what is added around the map, and what is left of its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from workers.errors import ModelError

#: Rows and columns added around a map: the same on all sides, or (top, left, bottom, right).
Padding: TypeAlias = int | tuple[int, int, int, int]


def pads(padding: Padding) -> list[int]:
    """The padding as ONNX has it: top, left, bottom, right."""
    return [padding] * 4 if isinstance(padding, int) else list(padding)


def slid(shape: Sequence[int], kernel: Sequence[int], stride: int, around: Sequence[int]) -> tuple[int, int]:
    """Height and width after a window slid over a map of `shape`. Raises ModelError when it does not fit in."""
    _, height, width = shape
    rows = (height + around[0] + around[2] - kernel[0]) // stride + 1
    columns = (width + around[1] + around[3] - kernel[1]) // stride + 1
    if rows < 1 or columns < 1:
        raise ModelError(f"a window of {kernel[0]}x{kernel[1]} is larger than the padded map {tuple(shape)}")
    return rows, columns
