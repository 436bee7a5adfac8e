"""`workers remove`: only models of the store, and only after a yes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers import shipped
from workers.__main__ import app


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "dents.onnx"
    path.write_bytes(b"model")
    return path


def remove(store: Path, *words: str, answer: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["remove", *words, "--store", str(store)], input=answer)
    return result.exit_code, result.output


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("", 1), ("y\n", 0)])
def test_it_asks_first(answer: str, code: int, model: Path) -> None:
    ended, said = remove(model.parent, "dents", answer=answer)
    assert (ended, model.exists()) == (code, code != 0)
    assert f"delete {model} (5 bytes)?" in said


def test_with_yes_it_does_not_ask(model: Path) -> None:
    assert remove(model.parent, "dents", "--yes") == (0, f"deleted {model}\n")
    assert not model.exists()


def test_what_is_not_there_is_told_with_what_is_near(model: Path) -> None:
    code, said = remove(model.parent, "dent", "--yes")
    assert (code, "did you mean dents?" in said, model.exists()) == (1, True, True)
    assert "export" not in said, "who deletes wants to bring nothing"
    assert remove(model.parent, "../dents", "--yes")[0] == 2


@pytest.mark.skipif(shipped.path("demo-det") is None, reason="the demo models have not been trained yet")
@pytest.mark.parametrize("of_package", [False, True])
def test_models_of_the_package_stay(of_package: bool, tmp_path: Path) -> None:
    code, said = remove(shipped.FOLDER if of_package else tmp_path, "demo-det", "--yes")
    assert (code, "comes with the package and stays" in said) == (1, True)
    assert shipped.path("demo-det") is not None


def test_ones_own_model_of_such_a_name_goes(tmp_path: Path) -> None:
    (tmp_path / "demo-det.onnx").write_bytes(b"mine")
    assert remove(tmp_path, "demo-det", "--yes")[0] == 0
    assert not (tmp_path / "demo-det.onnx").exists()
