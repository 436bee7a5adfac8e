"""The folder of models: what is written into it is whole, takes the place of nothing unasked, and has a safe name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.small_graphs import FLAT, GEMM, bring, graph, weights
from workers import store
from workers.errors import ModelError


def test_a_model_that_came_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    free = [store.free("m", tmp_path, replace=False) for _ in range(2)]
    assert store.keep("m", b"first", tmp_path, replace=False) == free[0]
    with pytest.raises(ModelError, match="is there already: --replace writes over it"):
        store.keep("m", b"second", tmp_path, replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"] and free[1].read_bytes() == b"first"
    store.keep("m", b"third", tmp_path, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"] and free[1].read_bytes() == b"third"


def test_an_import_says_whether_it_may_replace(tmp_path: Path) -> None:
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    bring(model, tmp_path)
    with pytest.raises(ModelError, match="is there already"):
        bring(model, tmp_path)
    bring(model, tmp_path, replace=True)


def no_links(part: Path, path: Path) -> None:
    """As on FAT, and on some shares."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_where_files_have_no_links_nothing_is_written_over_either(tmp_path: Path) -> None:
    part, path = tmp_path / "m.part", tmp_path / "m.onnx"
    part.write_bytes(b"first")
    store.publish(part, path, no_links)
    assert path.read_bytes() == b"first" and not part.exists()
    part.write_bytes(b"second")
    with pytest.raises(ModelError, match="is there already"):
        store.publish(part, path, no_links)
    assert path.read_bytes() == b"first"


def test_where_files_have_no_links_a_failure_leaves_no_empty_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(FileNotFoundError):
        store.publish(tmp_path / "gone.part", path, no_links)
    assert list(tmp_path.iterdir()) == []
    part = tmp_path / "m.part"
    part.write_bytes(b"model")
    store.publish(part, path, no_links)
    assert path.read_bytes() == b"model"


def test_a_model_that_was_quicker_stays_where_files_have_no_links(tmp_path: Path) -> None:
    """Another import's --replace, in the moment between taking the name and filling it."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"theirs")
    with pytest.raises(FileNotFoundError):
        store._fill(tmp_path / "gone.part", path)
    assert path.read_bytes() == b"theirs"


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_what_is_no_folder_is_told_as_such(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be written: (Not a directory|File exists)"):
        store.keep("m", b"model", tmp_path / folder)


@pytest.mark.parametrize("name", ["con", "nul", "aux", "prn", "com1", "lpt9", "com1.v2", "aux.b.c"])
def test_devices_of_windows_are_no_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="on Windows it is a device"):
        store.keep(name, b"model", tmp_path)
    (tmp_path / f"{name}.onnx").touch()
    assert store.names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["console", "com", "lpt10", "v2.con", "con-1"])
def test_what_only_sounds_like_one_is_a_name(name: str, tmp_path: Path) -> None:
    assert store.keep(name, b"model", tmp_path).stem == name
