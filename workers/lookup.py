"""Where a model's file is found by its name, and what a person is told where there is none."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from workers import shipped
from workers.errors import AbsentError, UsageError
from workers.store import NAME, check_name, default_store, names_in

#: Columns of the text; paths may be longer.
_WIDTH: Final = 79
#: Names of the store that are told, and names that are near to one that is not there, at most.
_SHOWN: Final = 24
_NEAR: Final = 3


def find(name: str, *, store: Path, written: str = "", folder: Path = Path()) -> Path:
    """The file of model `name`. `written`: what is said of it in `folder` (a line file's `file`): a path from there, or
    the name of a model; "": nothing.

    Raises UsageError for what can be no name, and AbsentError, which says where it was looked for and how to bring it.
    """
    places = list(_places(check_name(name), store, written, folder))
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        wanted = written if NAME.fullmatch(written) else name
        raise AbsentError(name, places, _near(wanted, store), _advice(name, store))
    return found


def is_name(written: str) -> bool:
    """Whether what a line file says of a model may be a name, and not only a path."""
    return NAME.fullmatch(written) is not None and not written.endswith(".onnx")


def name_of(file: Path) -> str:
    """A name for the model in a file: its stem, in small letters, other characters made `-`; "": none can be made."""
    return re.sub(r"[^a-z0-9_.-]+", "-", file.stem.lower()).lstrip("_.-")[:64]


def split(word: str) -> tuple[str, str]:
    """NAME and WHAT of `--model NAME[=WHAT]`; WHAT is "" where it is left out. Raises UsageError."""
    name, given, what = word.partition("=")
    if word.lower().endswith(".onnx") and (not given or Path(name).name != name):
        raise UsageError(f"--model {word}: a file needs a name, too: --model {name_of(Path(word)) or 'NAME'}={word}")
    return check_name(name), what


def _places(name: str, store: Path, written: str, folder: Path) -> Iterator[Path]:
    if written:
        yield folder / written
        if not is_name(written):
            return
        name = written
    yield folder / f"{name}.onnx"
    yield store / f"{name}.onnx"
    if name in shipped.NAMES:
        yield shipped.FOLDER / f"{name}.onnx"


def _near(name: str, store: Path) -> list[str]:
    """Names of models that are there, the nearest first; of a file, its stem counts."""
    known = [*names_in(store), *shipped.NAMES]
    return difflib.get_close_matches(name.removesuffix(".onnx"), dict.fromkeys(known), _NEAR)


def _advice(name: str, store: Path) -> str:
    """What is there, and how another model comes there: one command a line."""
    more = "" if store == default_store() else f" --store {store}"
    names = names_in(store)
    shown = [*names[:_SHOWN], *([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])]
    lines = [
        f"in {store}:",
        *textwrap.wrap(
            ", ".join(shown) or "no model", _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        ),
        f"with the package: {', '.join(shipped.NAMES)}",
        "to bring it there:",
        *(f"  {way}{more}" for way in _ways(name)),
        *_exports(name),
        "to use a file where it is:",
        f"  workers start --model {name}=FILE.onnx",
        f'  file = "FILE.onnx"  # below [models.{name}] in the line file',
    ]
    return "\n".join(lines)


def _ways(name: str) -> list[str]:
    """How a model comes into the store; those alone that a name tells."""
    brought, darknet = f"workers import FILE.onnx --name {name}", f"workers import FILE.cfg FILE.weights --name {name}"
    if _is_darknet(name):
        return [darknet]
    if re.fullmatch(r"yolov5[nsmlx](-seg|-cls)?|mobilenetv2", name):
        return [brought, f"workers zoo {name} --weights random"]
    if re.match(r"yolov8|yolov?1\d", name):
        return [brought]
    return [brought, darknet, f"workers zoo ARCHITECTURE --weights random --name {name}"]


def _exports(name: str) -> list[str]:
    """How FILE.onnx is made, elsewhere."""
    yolov5 = "python export.py --weights FILE.pt --include onnx --dynamic  # YOLOv5"
    yolov8 = "yolo export model=FILE.pt format=onnx dynamic=True  # YOLOv8, YOLO11"
    if _is_darknet(name):
        return []
    if name.startswith("yolov5"):
        made = [yolov5]
    elif re.match(r"yolov8|yolov?1\d", name):
        made = [yolov8]
    else:
        other = 'torch.onnx.export(model, example, "FILE.onnx")  # others, in Python'
        made = [yolov5, yolov8, other]
    return ["FILE.onnx is exported where the model was trained:", *(f"  {one}" for one in made)]


def _is_darknet(name: str) -> bool:
    return re.match(r"yolov[34]|yolo-fastest", name) is not None
