"""How a detector's output is laid out: YOLOv5's rows with an objectness, or YOLOv8's columns without one. Pure.

`yolov5`: [batch, boxes, 5 + classes (+ coefficients)], also Darknet's models and the zoo's. `yolov8`:
[batch, 4 + classes (+ coefficients), boxes], also YOLO11 and whatever else Ultralytics 8 exports, YOLOv5u included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

from workers.engine import Shape
from workers.errors import ModelError
from workers.metadata import word_in

Layout: TypeAlias = Literal["yolov5", "yolov8"]

#: Metadata key of our own; `workers describe` writes it.
LAYOUT: Final = "gongwei.layout"
#: Columns before the class scores: centre x, centre y, width, height, and YOLOv5's objectness.
HEADS: Final[Mapping[Layout, int]] = {"yolov5": 5, "yolov8": 4}
#: Columns that are believed of fewer boxes than columns.
_MOST_COLUMNS: Final = 1000
_KNOWN: Final[tuple[Layout, ...]] = get_args(Layout)


def written(metadata: Mapping[str, str], where: str) -> Layout | None:
    """The layout that the file's metadata tells, if any: in our words, or as an export of Ultralytics 8 or later.

    Raises ModelError for another word, and for an export whose boxes have been through a suppression of its own.
    """
    if metadata.get("end2end") == "True" or "'nms': True" in metadata.get("args", ""):
        raise ModelError(
            f"{where}: answers boxes that it has sorted out itself (end2end or nms); export it with nms=False"
            " end2end=False"
        )
    said = word_in(metadata, LAYOUT, _KNOWN, where, "say --layout")
    if said is None and metadata.get("author") == "Ultralytics" and metadata.get("version", "").startswith("8."):
        return "yolov8"
    return said


def choose(
    output: Shape, coefficients: int, names: int | None, size: tuple[int, int] | None, said: Layout | None, where: str
) -> tuple[Layout, int]:
    """The layout of `output` and its number of classes. `names`: how many classes have one, `size`: (height, width) of
    the input, None where unknown; `said`: what a person, or the file, says it is.

    Raises ModelError where none is possible, or several are.
    """
    cells = _cells(size)
    counts = {layout: _classes(output, layout, coefficients, cells) for layout in _KNOWN}
    possible = {layout: count for layout, count in counts.items() if count is not None}
    chosen = said or _evident(output, possible, names, cells)
    if chosen is not None and chosen in possible:
        return chosen, possible[chosen]
    if said is None and possible:
        forms = " or ".join(_form(layout, coefficients) for layout in _KNOWN)
        raise ModelError(f"{where}: output {list(output)} may be {forms}: say --layout yolov5 or --layout yolov8")
    forms = " nor ".join(_form(layout, coefficients) for layout in ([said] if said else _KNOWN))
    raise ModelError(f"{where}: output {list(output)} is not {forms}: export such a model")


def _form(layout: Layout, coefficients: int) -> str:
    """In words."""
    columns = f"{HEADS[layout]} + classes" + (f" + {coefficients} coefficients" if coefficients else "")
    return f"YOLOv5's [batch, boxes, {columns}]" if layout == "yolov5" else f"YOLOv8's [batch, {columns}, boxes]"


def _evident(output: Shape, possible: Mapping[Layout, int], names: int | None, cells: int | None) -> Layout | None:
    """The layout that it must be; None: both could be."""
    named = [layout for layout, count in possible.items() if count == names]
    if len(named) == 1:
        return named[0]
    _, rows, last = output
    if named or last is None or not possible:
        return None
    if len(possible) == 1:
        return next(iter(possible))
    if last == cells and rows != 3 * cells:
        return "yolov8"
    return "yolov5" if rows is None or rows >= last else None


def _classes(output: Shape, layout: Layout, coefficients: int, cells: int | None) -> int | None:
    """How many classes the output has room for in this layout; None: it cannot be in it."""
    _, rows, last = output
    columns, boxes = (last, rows) if layout == "yolov5" else (rows, last)
    if columns is None or columns - HEADS[layout] - coefficients < 1:
        return None
    if layout == "yolov5" and boxes is not None and boxes < columns and columns > _MOST_COLUMNS:
        return None
    if layout == "yolov8" and boxes is not None and boxes < columns and boxes != cells:
        return None
    return columns - HEADS[layout] - coefficients


def _cells(size: tuple[int, int] | None) -> int | None:
    """Boxes of a model without anchors: one for each cell of 8, 16 and 32 pixels."""
    if size is None:
        return None
    return sum((size[0] // stride) * (size[1] // stride) for stride in (8, 16, 32))
