"""`safetensors.parse`: the bytes are a file."""

from __future__ import annotations

import json

import numpy as np

from tests.fuzz import corpus
from workers.errors import ModelError
from workers.zoo.safetensors import parse


def seeds() -> list[bytes]:
    entry = {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}
    half = {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]}
    headers = [{"a": entry, "b": half, "__metadata__": {"format": "pt"}}, {"a": entry}, {}]
    return [*(file(json.dumps(header).encode()) for header in headers), *corpus.files("tensors")]


def file(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(range(10))


def target(data: bytes) -> None:
    """Arrays that lie in the file, or a ModelError of one short line."""
    try:
        found = parse(data, "w.safetensors")
    except ModelError as error:
        assert len(str(error)) < 500 and str(error).isprintable(), error
        return
    assert all(array.dtype == np.float32 for array in found.values())
    assert sum(array.size for array in found.values()) <= len(data)
