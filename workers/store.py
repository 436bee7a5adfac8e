"""Where model files are: the line file's word, this folder, the folder of models of this machine, or this package."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker.filename import is_device
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
    if is_device(name):
        raise ModelError(f"{name!r} is no model name: on Windows it is a device, with any suffix; take another one")
    return name


def find(name: str, *, written: Path | None, store: Path) -> Path:
    """The file of model `name`; `written`: what the line file says. Raises ModelError saying how to bring it."""
    places = list(_places(check_name(name), written, store))
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        looked = ", ".join(map(str, places))
        raise ModelError(
            f"model {name}: no file; looked for {looked}. Bring it: {_ways(name)}."
            f" A file that stays where it is: --model {name}=FILE.onnx, or models.{name}.file in the line file."
            f" What is there: workers models{'' if store == default_store() else f' --store {store}'}"
        )
    return found


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


def _ways(name: str) -> str:
    """How a model of this name comes into the store; all ways, where the name does not tell which."""
    brought = f"workers import FILE.onnx --name {name}"
    yolov5 = f"python export.py --weights FILE.pt --include onnx --dynamic (YOLOv5, elsewhere), then {brought}"
    yolov8 = f"yolo export model=FILE.pt format=onnx dynamic=True (YOLOv8 or 11, elsewhere), then {brought}"
    darknet = f"workers import FILE.cfg FILE.weights --name {name} (Darknet)"
    zoo = "workers zoo {} --weights random (for trials; what it finds means nothing)"
    if re.match(r"yolov[34]|yolo-fastest", name):
        return darknet
    if re.fullmatch(r"yolov5[nsmlx](-seg|-cls)?", name):
        return f"{yolov5}; or {zoo.format(name)}"
    if re.match(r"yolov8|yolov?1\d", name):
        return yolov8
    other = f'torch.onnx.export(model, example, "FILE.onnx") (other PyTorch models, elsewhere), then {brought}'
    return "; ".join([brought, yolov5, yolov8, other, darknet, zoo.format("NAME")])


def _places(name: str, written: Path | None, store: Path) -> Iterator[Path]:
    if written is not None:
        yield written
        return
    yield Path(f"{name}.onnx")
    yield store / f"{name}.onnx"
    if name in shipped.NAMES:
        yield shipped.FOLDER / f"{name}.onnx"
