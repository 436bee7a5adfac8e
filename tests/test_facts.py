"""What a model is, read in a process of its own: its classes, why workers refuse it, and what stops its reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from broker.line import Line, Model, Station
from ops import facts
from ops.facts import Facts
from workers import PIXELS_VARIABLE, tiny
from workers.options import ModelOptions


def line(**models: Model) -> Line:
    return Line(stations={"a": Station()}, cameras={}, models=models, routes={})


def test_every_model_with_a_file_is_read(tmp_path: Path) -> None:
    tiny.make(tmp_path / "models" / "a.onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "models" / "a.onnx").read_bytes()[:1000])
    described = line(
        a=Model(file="models/a.onnx"), cut=Model(file="cut.onnx"), gone=Model(file="gone.onnx"),
        fake=Model(file="fake:delay=0.01"), wrong=Model(file="fake:speed=1"), elsewhere=Model(),
    )  # fmt: skip
    found = facts.of_line(described, tmp_path)
    assert list(found) == ["a", "cut", "gone", "fake", "wrong"]
    assert found["a"] == Facts(task="detect", names=tiny.NAMES)
    assert "cut.onnx: onnxruntime cannot load it" in found["cut"].refused
    assert "gone.onnx" in found["gone"].refused
    assert "allowed are delay" in found["wrong"].refused
    assert facts.class_names(found) == {"a": tiny.NAMES, "fake": ("frame",)}


def test_a_device_that_is_not_here_is_refused_as_workers_do(tmp_path: Path) -> None:
    tiny.make(tmp_path / "a.onnx")
    found = facts.read(ModelOptions(name="a", source=tmp_path / "a.onnx", device="abacus"))
    assert "device 'abacus' is not available" in found.refused


def test_a_model_that_does_not_load_in_time_is_unread(tmp_path: Path) -> None:
    tiny.make(tmp_path / "a.onnx")
    found = facts.read(ModelOptions(name="a", source=tmp_path / "a.onnx"), timeout=0.001)
    assert found == Facts(unread=f"{tmp_path / 'a.onnx'}: was not loaded within 0.001 s")


def test_a_model_that_ends_its_reader_is_refused_with_the_last_words() -> None:
    found = facts.told("a.onnx", 70, b"", b"one\nMemoryError: two\n")
    assert found.refused == "a.onnx: the process that loaded it ended (exit code 70): MemoryError: two"
    assert "no last words" in facts.told("a.onnx", 70, b"", b"").refused


def test_what_others_print_before_the_facts_does_no_harm() -> None:
    assert facts.told("a.onnx", 0, b'banner\n{"names": ["a"]}\n', b"") == Facts(names=("a",))


def test_no_order_of_imports_leaves_ops_without_the_limit_of_pixels() -> None:
    bare = {name: value for name, value in os.environ.items() if name != PIXELS_VARIABLE}
    for module in ("ops.inputs", "ops.facts", "ops.demands", "ops.up", "ops.demo"):
        argv = [sys.executable, "-c", f"import {module}"]
        done = subprocess.run(argv, env=bare, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
