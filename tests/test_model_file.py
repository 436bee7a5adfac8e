"""The version of a model: that of its file, and of the weights that lie in files of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from broker.model_file import version
from tests.small_graphs import FLAT, GEMM, graph, weights
from workers import onnxfile
from workers.engine.onnx import OnnxEngine


def apart(folder: Path, location: str = "apart.bin") -> Path:
    path = folder / "m.onnx"
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 3 << 20])
def test_of_a_single_file_it_is_the_sha256(size: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(np.random.default_rng(1).bytes(size))
    assert version(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("location", ["apart.bin", "a" * 200])
def test_other_weights_are_another_version(location: str, tmp_path: Path) -> None:
    path = apart(tmp_path, location)
    before = OnnxEngine.load(path, threads=1).signature.sha256
    data = tmp_path / location
    kept = data.read_bytes()
    data.write_bytes((np.frombuffer(kept, np.float32) * -3).tobytes())
    assert OnnxEngine.load(path, threads=1).signature.sha256 != before
    data.write_bytes(kept)
    assert OnnxEngine.load(path, threads=1).signature.sha256 == before == version(path) == onnxfile.sha256(path)


def test_it_is_what_its_description_says(tmp_path: Path) -> None:
    path = apart(tmp_path)
    data = hashlib.sha256((tmp_path / "apart.bin").read_bytes()).digest()
    assert version(path) == hashlib.sha256(path.read_bytes() + b"\0apart.bin\0" + data).hexdigest()


@pytest.mark.parametrize("offset", range(-40, 1))
def test_a_name_is_found_wherever_the_file_is_cut(offset: int, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes((1 << 20) + offset) + b"\x0a\x08location\x12\x05w.bin" + bytes(1 << 14))
    assert version(path) != hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", [b"absent", b".", b"a" * 127, b"\0", b"\xff\xfe"])
def test_what_is_no_file_is_left_out(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    long = name * 32 if len(name) == 127 else name
    length = bytes([len(long)]) if len(long) < 128 else bytes([len(long) & 0x7F | 0x80, len(long) >> 7])
    path.write_bytes(b"\x0a\x08location\x12" + length + long)
    assert version(path) == hashlib.sha256(path.read_bytes()).hexdigest()
