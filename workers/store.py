"""Where model files are: the line file's word, this folder, the folder of models of this machine, or this package."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from workers import shipped
from workers.errors import ModelError

#: What a model's name may be: it becomes a label, a topic and a file name.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def default_store() -> Path:
    """The folder of models of this user: XDG's, or Windows' local application data."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "gongwei" / "models"


def check_name(name: str) -> str:
    """The name itself. Raises ModelError when it cannot be the name of a model."""
    if NAME.fullmatch(name) is None:
        raise ModelError(f"{name!r} is no model name: up to 64 of a-z 0-9 _ . -, the first a letter or digit")
    return name


def find(name: str, *, written: Path | None, store: Path) -> Path:
    """The file of model `name`; `written`: what the line file says. Raises ModelError saying how to bring it."""
    places = list(_places(check_name(name), written, store))
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        looked = ", ".join(map(str, places))
        raise ModelError(
            f"model {name}: no file; looked for {looked}."
            f" Copy its ONNX file to one of these, or say --model {name}=FILE.onnx, or set models.{name}.file in the"
            " line file. From YOLOv5 weights: python export.py --weights FILE.pt --include onnx --dynamic;"
            " of YOLOv8 or 11: yolo export model=FILE.pt format=onnx dynamic=True;"
            f" from Darknet: workers import FILE.cfg FILE.weights --name {name};"
            " without any: workers zoo says what can be built with random weights"
        )
    return found


def keep(name: str, model: bytes, store: Path) -> Path:
    """Write an ONNX model into the store, whole or not at all; replaces an earlier one. Raises ModelError."""
    path = store / f"{check_name(name)}.onnx"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        store.mkdir(parents=True, exist_ok=True)
        part.write_bytes(model)
        part.replace(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _places(name: str, written: Path | None, store: Path) -> Iterator[Path]:
    if written is not None:
        yield written
        return
    yield Path(f"{name}.onnx")
    yield store / f"{name}.onnx"
    if name in shipped.NAMES:
        yield shipped.FOLDER / f"{name}.onnx"
