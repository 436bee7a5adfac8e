"""The command line's options that several commands of `workers` have, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker import line as line_file
from broker.line import Line, LineError
from workers.errors import WorkersError
from workers.flags import hints
from workers.model import Hints

LineOption = Annotated[Path | None, typer.Option("--line", help="The line file (TOML).", show_default=False)]
StoreOption = Annotated[Path | None, typer.Option(help="Folder of models; default: this user's gongwei/models.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, or cuda where onnxruntime has it; default: the line file's, else cpu.")
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option(
        help="Least score of a detection; default: the line file's, else 0.25, or less where a rule asks for less.",
        min=0,
        max=1,
    ),
]
IouOption = Annotated[
    float | None,
    typer.Option(
        help="Boxes of a class that overlap by more are one; default: the line file's, else 0.45.", min=0, max=1
    ),
]
EngineThreadsOption = Annotated[
    int | None,
    typer.Option(help="Threads in one call; 0: the cores, divided; default: the line file's, else 0.", min=0, max=1024),
]
TaskOption = Annotated[str | None, typer.Option(help="detect, segment or classify, where the file does not say.")]
LabelsOption = Annotated[Path | None, typer.Option(help="File of class names, one per line.")]
SizeOption = Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of an input that the file leaves open.")]
MeanOption = Annotated[str | None, typer.Option(help="Grey level 0..255 that becomes 0: one number, or R,G,B.")]
StdOption = Annotated[str | None, typer.Option(help="What the rest is divided by: one number, or R,G,B.")]
FitOption = Annotated[str | None, typer.Option(help="letterbox, stretch or crop.")]
LayoutOption = Annotated[
    str | None, typer.Option(help="yolov5 or yolov8: how a detector's boxes are laid out, where both could be.")
]


def fail(message: str, code: int = 1) -> typer.Exit:
    """To be raised: the message goes to stderr."""
    typer.echo(message, err=True)
    return typer.Exit(code)


def line_of(path: Path | None) -> Line | None:
    """The line file, if one was named. Raises typer.Exit where it is wrong."""
    try:
        return line_file.load(path) if path is not None else None
    except LineError as error:
        raise fail(str(error), 2) from None


def hints_of(
    task: str | None,
    labels: Path | None,
    size: str | None,
    mean: str | None,
    std: str | None,
    fit: str | None,
    layout: str | None = None,
) -> Hints:
    """What the options say about a model. Raises typer.Exit where one is wrong."""
    try:
        return hints(task=task, labels=labels, size=size, mean=mean, std=std, fit=fit, layout=layout)
    except WorkersError as error:
        raise fail(str(error), 2) from None
