"""`workers zoo`: what the zoo has, and one of it made into a model of the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from workers.arguments import failed
from workers.errors import UsageError, WorkersError
from workers.flags import (
    CalibrationOption,
    JsonOption,
    LabelsOption,
    PrecisionOption,
    ReplaceOption,
    StoreOption,
    hints,
)
from workers.model import Hints
from workers.precision.wanted import Wanted
from workers.store import default_store, free, keep

if TYPE_CHECKING:
    from workers.zoo.catalogue import Architecture

#: The word for weights that nobody trained.
RANDOM: Final = "random"


def zoo(
    name: Annotated[str, typer.Argument(help="An architecture; without one, what there is.", show_default=False)] = "",
    weights: Annotated[str, typer.Option(help="random, or a .onnx or .safetensors FILE.", show_default=False)] = "",
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of the input; default: the published one.")] = None,
    classes: Annotated[int | None, typer.Option(help="How many; default: the file's, or as published.", min=1)] = None,
    labels: LabelsOption = None,
    seed: Annotated[int, typer.Option(help="Of random weights.", min=0)] = 0,
    called: Annotated[str, typer.Option("--name", help="Name of the model; default: the architecture's.")] = "",
    precision: PrecisionOption = None,
    calibration: CalibrationOption = None,
    store: StoreOption = None,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Architectures that are built here: YOLOv5 n to x for detection, segmentation, classification, and MobileNetV2.

    With random weights they cost what trained ones cost, and what they find means nothing: results are marked
    `random`, and a verdict that rests on them is never `ok`. With weights from a file they answer what the file
    answers, at any batch and at another input size. With --precision it is made fp16 or int8 at once, as `workers
    quantise` does it, and called NAME-fp16 or NAME-int8 unless --name says.

    Examples:

      workers zoo

      workers zoo yolov5s-seg --weights random

      workers zoo yolov5n --weights best.onnx --size 384x640

      workers zoo yolov5m --weights random --classes 4 --seed 7 --name trial --store models

      workers zoo yolov5n --weights best.onnx --precision fp16
    """
    if not name:
        _list(as_json)
        return
    try:
        wanted = Wanted(precision, calibration)
        said = hints(task=None, labels=labels, size=size, mean=None, std=None, fit=None)
        told = _make(name, weights, said, classes, seed, called, wanted, store or default_store(), replace)
    except WorkersError as error:
        raise failed(error) from None
    typer.echo(json.dumps(told) if as_json else f"wrote {told['file']} ({told['bytes']} bytes), {told['says']}")


def _list(as_json: bool) -> None:
    from workers.zoo.catalogue import ARCHITECTURES  # here: it loads onnx, which no other command waits for

    rows = [_row(one) for one in ARCHITECTURES.values()]
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        Console().print(table(rows))


def table(rows: list[dict[str, Any]]) -> Table:
    """The list for people."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("name")
    shown.add_column("task")
    for title in ("input", "parameters", "multiply-adds", "published as"):
        shown.add_column(title, justify="right")
    for row in rows:
        size = "x".join(map(str, row["size"]))
        millions = f"{row['parameters'] / 1e6:.1f} M"
        shown.add_row(row["name"], row["task"], size, millions, f"{row['macs'] / 1e9:.2f} G", row["published"])
    return shown


def _row(kind: Architecture) -> dict[str, Any]:
    net = kind.build()
    count = kind.published(net)
    published = f"{count / 1e9:.1f} GFLOPs" if kind.name != "mobilenetv2" else f"{count // 1e6:.0f} M multiply-adds"
    return {
        "name": kind.name,
        "task": kind.task,
        "size": [kind.side, kind.side],
        "classes": kind.classes,
        "parameters": net.parameters,
        "macs": net.cost.macs,
        "published": published,
    }


def _make(
    name: str,
    weights: str,
    said: Hints,
    classes: int | None,
    seed: int,
    called: str,
    wanted: Wanted,
    store: Path,
    replace: bool,
) -> dict[str, Any]:
    from workers import onnxfile
    from workers.zoo.catalogue import find
    from workers.zoo.making import Order, make

    kind = find(name)
    if not weights:
        raise UsageError("say what its weights are: --weights random, or --weights FILE.onnx or FILE.safetensors")
    target = free(called or wanted.name(kind.name), store, replace=replace)
    source = None if weights == RANDOM else Path(weights)
    model = make(Order(kind=kind, weights=source, size=said.size, classes=classes, seed=seed, names=said.names))
    content = onnxfile.content(wanted.made(model, kind.name), kind.name)
    keep(target.stem, content, store, replace=replace)
    says = "random weights: what it finds means nothing" if source is None else f"weights of {source.name}"
    says = f"{wanted.precision}, {says}" if wanted.precision else says
    return {"file": str(target), "bytes": len(content), "weights": weights, "says": says}
