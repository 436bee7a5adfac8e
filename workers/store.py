"""The folder of models of this user: what is in it, and what is written into it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker.filename import is_device
from workers.errors import ModelError, UsageError

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
    """The name itself. Raises UsageError when it cannot be the name of a model."""
    if NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} is no model name: up to 64 of a-z 0-9 _ . -, the first a letter or digit")
    if is_device(name):
        raise UsageError(f"{name!r} is no model name: on Windows it is a device, with any suffix; take another one")
    return name


def names_in(store: Path) -> list[str]:
    """The models of the store, sorted; files whose names are none are left out. A store that is not there has none."""
    stems = (path.name.removesuffix(".onnx") for path in store.glob("*.onnx"))
    return sorted(stem for stem in stems if NAME.fullmatch(stem) and not is_device(stem))


def free(name: str, store: Path, *, replace: bool) -> Path:
    """The file that model `name` is to have. Raises ModelError where there is one that may not be replaced."""
    path = store / f"{check_name(name)}.onnx"
    if path.exists() and not replace:
        raise _taken(path)
    return path


def keep(name: str, model: bytes, store: Path, *, replace: bool = False) -> Path:
    """Write an ONNX model into the store, whole or not at all, also where the power fails.

    Raises ModelError, also where there is one that may not be replaced: another import may have brought it meanwhile.
    """
    path = store / f"{check_name(name)}.onnx"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        store.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(model)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            part.replace(path)
        else:
            publish(part, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):  # the error above is the one to tell
            part.unlink(missing_ok=True)
    return path


def publish(part: Path, path: Path, link: Callable[[Path, Path], None] = os.link) -> None:
    """Give the file `part` the name `path`, unless there is one of that name. Raises ModelError then, or OSError."""
    try:
        if sys.platform == "win32":
            part.rename(path)  # there it replaces nothing
            return
        try:
            link(part, path)
        except FileExistsError:
            raise
        except OSError:  # no links on this file system (FAT, some shares): take the name first
            path.touch(exist_ok=False)
            _fill(part, path)
    except FileExistsError:
        raise _taken(path) from None


def _fill(part: Path, path: Path) -> None:
    """Put `part` in the place of the empty file `path`; where that fails, nothing of this name is left."""
    try:
        part.replace(path)
    except BaseException:  # Ctrl-C, too: an empty file would be a model that nobody can load, and hold the name
        with suppress(OSError):
            if path.stat().st_size == 0:  # else somebody's --replace was quicker
                path.unlink()
        raise


def _taken(path: Path) -> ModelError:
    return ModelError(
        f"{path} is there already: --replace writes over it, --name another name's, --store DIR another folder's"
    )
