"""`workers quantise`: a model of the store in fp16 or int8, under a name of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from workers.arguments import fail
from workers.errors import ModelError, WorkersError
from workers.flags import ReplaceOption, StoreOption
from workers.metadata import Precision
from workers.store import check_name, default_store, find, keep


def quantise(
    name: Annotated[str, typer.Argument(help="A model of the store, of fp32.")],
    precision: Annotated[Literal["fp16", "int8"], typer.Option(help="What the copy computes in.")],
    calibration: Annotated[
        Path | None, typer.Option(help="int8: folder of pictures as the line makes them.", show_default=False)
    ] = None,
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
        path = quantised(name, precision, calibration, folder, new or f"{name}-{precision}", replace)
    except WorkersError as error:
        raise fail(str(error)) from None
    typer.echo(f"wrote {path} ({path.stat().st_size} bytes), {precision}")


def quantised(
    name: str, precision: Precision, calibration: Path | None, store: Path, new: str, replace: bool = False
) -> Path:
    """The file of the copy. Raises ModelError; then nothing is written."""
    import onnx  # here: it takes long to import, and `workers start` needs none of it
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from workers.precision.conversion import convert

    source, target = (
        find(name, written=store / f"{check_name(name)}.onnx", store=store),
        store / f"{check_name(new)}.onnx",
    )
    if target.exists() and (not replace or target == source):
        raise ModelError(f"{target} is there already: --as gives the copy another name, --replace writes over it")
    try:
        model = onnx.load(source)
    except (OSError, DecodeError) as error:
        raise ModelError(f"{source}: cannot be read as ONNX: {error}") from None
    try:
        made = convert(model, precision, calibration)
    except WorkersError as error:
        raise ModelError(f"{source}: {error}") from None
    return keep(new, made.SerializeToString(deterministic=True), store)
