"""`workers quantise`: a model of the store in fp16 or int8, under a name of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workers import shipped
from workers.arguments import failed
from workers.errors import ModelError, WorkersError
from workers.flags import CalibrationOption, ReplaceOption, StoreOption
from workers.lookup import find
from workers.metadata import Precision
from workers.precision.wanted import Wanted
from workers.store import check_name, default_store, keep


def quantise(
    name: Annotated[str, typer.Argument(help="A model of the store, of fp32.")],
    precision: Annotated[Precision, typer.Option(help="What the copy is to compute in.")],
    calibration: CalibrationOption = None,
    store: StoreOption = None,
    new: Annotated[str, typer.Option("--as", help="Name of the copy; default: NAME-fp16, NAME-int8.")] = "",
    replace: ReplaceOption = False,
) -> None:
    """Copy a model of the folder of models into fp16 or int8, for engines on GPUs.

    The heads stay fp32, and so do inputs and outputs: everything else about the model is as it was. On a CPU fp16 is no
    faster. Of some hundred pictures, as many kinds of parts and light as the line has, int8 learns its ranges.

    Examples:

      workers quantise yolov5s --precision fp16

      workers quantise parts --precision int8 --calibration pictures --as parts-small
    """
    folder = store or default_store()
    try:
        wanted = Wanted(precision, calibration)
        path = quantised(name, wanted, folder, new or wanted.name(name), replace)
    except WorkersError as error:
        raise failed(error) from None
    typer.echo(f"wrote {path} ({path.stat().st_size} bytes), {precision}")


def quantised(name: str, wanted: Wanted, store: Path, new: str, replace: bool = False) -> Path:
    """The file of the copy. Raises ModelError; then nothing is written."""
    from workers import onnxfile  # here: it loads onnx, which takes long, and `workers start` needs none of it

    kept = store / f"{check_name(name)}.onnx"
    # A model that comes with the package may be the source, too; a file in the working folder may not.
    source = find(name, written=str(kept if kept.is_file() else shipped.path(name) or kept), store=store)
    target = store / f"{check_name(new)}.onnx"
    if target.exists() and (not replace or target == source):
        raise ModelError(f"{target} is there already: --as gives the copy another name, --replace writes over it")
    made = wanted.made(onnxfile.load(source), str(source))
    return keep(new, onnxfile.content(made, str(source)), store, replace=replace)
