"""fp16 and int8 at once, from `workers import` and `workers zoo`: what `workers quantise` makes of the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from tests.darknet.cases import NEW_COORDS
from tests.darknet.noise import weight_file
from tests.small_models import PRECISIONS
from workers import listing, onnxfile
from workers.__main__ import app
from workers.metadata import CALIBRATION, PRECISION, Precision
from workers.options import ModelOptions
from workers.runner import Runner
from workers.zoo.catalogue import find
from workers.zoo.cfg import parse
from workers.zoo.making import Order, make
from workers.zoo.plan import plan


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector's file."""
    path = tmp_path_factory.mktemp("exports") / "Parts.onnx"
    model = make(Order(kind=find("yolov5n"), size=(64, 96), classes=3))
    path.write_bytes(model.SerializeToString())
    return path


def workers(*words: object, code: int = 0) -> str:
    """What the command says."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def wanted(precision: Precision, drawn: Path) -> list[object]:
    return ["--precision", precision, *(["--calibration", drawn] if precision == "int8" else [])]


def said(path: Path) -> dict[str, str]:
    return onnxfile.metadata(onnx.load(path))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_import_makes_what_quantise_makes(precision: Precision, export: Path, drawn: Path, tmp_path: Path) -> None:
    told = workers("import", export, "--store", tmp_path, *wanted(precision, drawn))
    assert told.rstrip().endswith(f"bytes), {precision}")
    at_once = (tmp_path / f"parts-{precision}.onnx").read_bytes()
    workers("import", export, "--store", tmp_path)
    workers("quantise", "parts", "--store", tmp_path, *wanted(precision, drawn), "--replace")
    assert (tmp_path / f"parts-{precision}.onnx").read_bytes() == at_once
    rows = {row["name"]: row["precision"] for row in listing.listed(tmp_path)}
    assert rows == {"parts": "fp32", f"parts-{precision}": precision}
    model = Runner.load(ModelOptions(name="m", source=tmp_path / f"parts-{precision}.onnx"), 1).model
    assert model.precision == precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_zoo_makes_it_too(precision: Precision, drawn: Path, tmp_path: Path) -> None:
    words = ("mobilenetv2", "--weights", "random", "--size", "64x64", "--classes", 3, "--store", tmp_path)
    told = workers("zoo", *words, *wanted(precision, drawn))
    assert told.rstrip().endswith(f"bytes), {precision}, random weights: what it finds means nothing")
    at_once = (tmp_path / f"mobilenetv2-{precision}.onnx").read_bytes()
    workers("zoo", *words)
    workers("quantise", "mobilenetv2", "--store", tmp_path, *wanted(precision, drawn), "--replace")
    assert (tmp_path / f"mobilenetv2-{precision}.onnx").read_bytes() == at_once
    files = {path.stem: said(path) for path in tmp_path.glob("*.onnx")}
    assert {name: one[PRECISION] for name, one in files.items()} == {
        "mobilenetv2": "fp32",
        f"mobilenetv2-{precision}": precision,
    }
    assert files[f"mobilenetv2-{precision}"].get(CALIBRATION) == ("4 pictures" if precision == "int8" else None)
    assert "is there already" in workers("zoo", *words, *wanted(precision, drawn), code=1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_darknet_model_becomes_it_too(precision: Precision, drawn: Path, tmp_path: Path) -> None:
    cfg, weights = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg.write_text(NEW_COORDS, encoding="utf-8")
    network = plan(parse(NEW_COORDS, ""))
    weights.write_bytes(weight_file(network, 1, np.ones(len(network.layers), np.float32)))
    (tmp_path / "names").write_text("\n".join(map(str, range(network.heads[0].classes))), encoding="utf-8")
    words = ("--labels", tmp_path / "names", "--store", tmp_path / "store", "--name", "small")
    workers("import", cfg, weights, *words, *wanted(precision, drawn))
    assert said(tmp_path / "store" / "small.onnx")[PRECISION] == precision


def test_what_does_not_go_together_is_refused_before_anything_is_read(drawn: Path, tmp_path: Path) -> None:
    """There is no such file: a model is not looked at in vain."""
    for words in (
        ("import", "no.onnx"),
        ("zoo", "yolov5n", "--weights", "no.onnx"),
        ("quantise", "no"),
    ):
        told = workers(*words, "--store", tmp_path, "--precision", "int8", code=2)
        assert "--precision int8 needs --calibration FOLDER: some hundred pictures" in told
        told = workers(*words, "--store", tmp_path, "--precision", "fp32", code=2)
        assert "--precision fp32: would make a copy of the same model" in told
        told = workers(*words, "--store", tmp_path, "--precision", "fp16", "--calibration", drawn, code=2)
        assert "--precision fp16 takes none" in told
    told = workers("import", "no.onnx", "--store", tmp_path, "--calibration", drawn, code=2)
    assert "is for --precision int8; say that, too" in told
    assert not list(tmp_path.iterdir())


def test_what_is_fp16_already_is_imported_as_such_and_warned_of(export: Path, drawn: Path, tmp_path: Path) -> None:
    """Another program's fp16: the import sees it in the weights."""
    workers("import", export, "--store", tmp_path, "--precision", "fp16", "--name", "half")
    model = onnx.load(tmp_path / "half.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    names = tmp_path / "names"
    names.write_text("a\nb\nc\n", encoding="utf-8")
    refused = workers("import", tmp_path / "other.onnx", "--labels", names, "--store", tmp_path / "store",
                      *wanted("int8", drawn), code=1)  # fmt: skip
    assert "is of fp16 already" in refused
    assert not (tmp_path / "store").exists()
    workers("import", tmp_path / "other.onnx", "--labels", names, "--store", tmp_path / "store")
    runner = Runner.load(ModelOptions(name="m", source=tmp_path / "store" / "other.onnx"), 1)
    assert (runner.model.precision, runner.advice()[:32]) == ("fp16", "fp16 is slower than fp32 on a CP")


def test_int8_of_others_is_not_warned_of(export: Path, drawn: Path, tmp_path: Path) -> None:
    """A CPU may be fast at it: QLinearConv is computed in 8 bits there."""
    workers("import", export, "--store", tmp_path, *wanted("int8", drawn), "--name", "ours")
    model = onnx.load(tmp_path / "ours.onnx")
    kept = [entry for entry in model.metadata_props if entry.key != CALIBRATION]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "theirs.onnx")
    advice = {
        name: Runner.load(ModelOptions(name=name, source=tmp_path / f"{name}.onnx"), 1).advice()[:22]
        for name in ("ours", "theirs")
    }
    assert advice == {"ours": "int8 is slower than fp", "theirs": ""}
