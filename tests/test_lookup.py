"""Where a model is found by its name, and what a person reads where it is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from broker.line import CameraEntry, Line, Model, Route, Station
from tests.test_workers_cli import workers_command
from workers.errors import AbsentError, UsageError
from workers.flags import Flags, model_options
from workers.lookup import find, name_of, split


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    for name in ("scratches", "dents"):
        (folder / f"{name}.onnx").touch()
    return folder


def told(name: str, store: Path) -> list[str]:
    with pytest.raises(AbsentError) as caught:
        find(name, store=store, folder=store.parent)
    return str(caught.value).splitlines()


def test_a_model_that_is_not_there_is_told_in_short_lines(store: Path) -> None:
    lines = told("scratchs", store)
    assert lines[:6] == [
        "model scratchs: no file; looked for",
        f"  {store.parent / 'scratchs.onnx'}",
        f"  {store / 'scratchs.onnx'}",
        "did you mean scratches?",
        f"in {store}:",
        "  dents, scratches",
    ]
    assert f"  workers import FILE.onnx --name scratchs --store {store}" in lines
    assert all(len(line) < 80 or str(store) in line for line in lines)
    assert not any(line.count("workers ") > 1 for line in lines), "one command a line"


def test_a_store_of_many_models_is_not_told_whole(store: Path) -> None:
    for number in range(40):
        (store / f"m{number:02}.onnx").touch()
    text = "\n".join(told("parts", store))
    assert "and 18 more" in text and "m39" not in text and "did you mean" not in text


@pytest.mark.parametrize(
    ("name", "ways", "exports"),
    [
        ("yolov4-tiny", ["workers import FILE.cfg FILE.weights --name yolov4-tiny"], 0),
        ("yolov5s-seg", ["workers import FILE.onnx", "workers zoo yolov5s-seg --weights random"], 1),
        ("yolo11n", ["workers import FILE.onnx --name yolo11n"], 1),
        ("bolts", ["workers import FILE.onnx", "workers import FILE.cfg", "workers zoo ARCHITECTURE"], 3),
    ],
)
def test_the_name_tells_how_it_is_brought(name: str, ways: list[str], exports: int, store: Path) -> None:
    lines = told(name, store)
    begin = lines.index("to bring it there:") + 1
    for way, line in zip(ways, lines[begin:], strict=False):
        assert line.strip().startswith(way)
    assert not lines[begin + len(ways)].startswith("  "), "no other way"
    assert sum("export" in line and line.startswith("  ") for line in lines) == exports


def line(file: str) -> Line:
    return Line(
        stations={"s": Station()},
        cameras={"c": CameraEntry(station="s")},
        models={"surface": Model(file=file)},
        routes={"c": Route(models=["surface"])},
    )


def test_a_line_file_may_name_a_model_of_the_store(store: Path, tmp_path: Path) -> None:
    def source(file: str) -> object:
        return model_options("surface", Flags(store=store), line(file), tmp_path).source

    assert source("scratches") == store / "scratches.onnx"
    (tmp_path / "scratches.onnx").touch()
    assert source("scratches") == tmp_path / "scratches.onnx", "beside the line file goes first"
    with pytest.raises(AbsentError, match=r"did you mean dents\?"):
        source("dents.onnx")  # a path is a path


@pytest.mark.parametrize("word", ["/path/X 1.onnx", "x.onnx", "runs/a=1/x.onnx"])
def test_a_file_without_a_name_is_told_how_to_be_written(word: str) -> None:
    with pytest.raises(UsageError, match=r"a file needs a name, too: --model x(-1)?=" + word.replace(".", r"\.") + "$"):
        split(word)


def test_what_has_a_name_is_taken_apart() -> None:
    assert split("a=runs/b=1/x.onnx") == ("a", "runs/b=1/x.onnx")
    assert split("a") == ("a", "")
    assert name_of(Path("工位.onnx")) == ""
    with pytest.raises(UsageError, match="'A' is no model name"):
        split("A=x.onnx")


def start(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return workers_command("start", *words, cwd=cwd)


def test_start_says_it_for_people_and_in_the_log_of_machines(store: Path, tmp_path: Path) -> None:
    absent = start("--model", "scratchs", "--store", str(store), cwd=tmp_path)
    assert (absent.returncode, absent.stderr.splitlines()[0]) == (1, "model scratchs: no file; looked for")
    unnamed = start("--model", "/path/x.onnx", cwd=tmp_path)
    assert (unnamed.returncode, unnamed.stderr) == (
        2,
        "--model /path/x.onnx: a file needs a name, too: --model x=/path/x.onnx\n",
    )
    logged = start("--model", "scratchs", "--store", str(store), "--json-log", cwd=tmp_path)
    assert (logged.returncode, len(logged.stderr.splitlines())) == (1, 1)
