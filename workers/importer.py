"""`workers import`: a model's files, as they come, into the folder of models, as ONNX that says all about itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from broker.plural import counted
from workers.arguments import failed, hints_of
from workers.errors import UsageError, WorkersError
from workers.flags import (
    CalibrationOption,
    ConfidenceOption,
    FitOption,
    IouOption,
    LabelsOption,
    LayoutOption,
    MeanOption,
    PrecisionOption,
    ReplaceOption,
    SizeOption,
    StdOption,
    StoreOption,
    TaskOption,
)
from workers.metadata import namesakes
from workers.model import Hints, Model
from workers.precision.wanted import Wanted
from workers.settings import Settings
from workers.store import default_store, free

#: The forms of a model's files, for error texts.
_FORMS: Final = "workers import FILE.onnx, or workers import FILE.cfg FILE.weights (Darknet)"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a person asks of an import, whatever the files are. `path`: the file that the model is to have in the
    folder of models; `licence`: a note; `replace`: an earlier model of that name."""

    path: Path
    hints: Hints
    colours: str
    settings: Settings
    licence: str | None
    wanted: Wanted
    replace: bool


def bring(
    files: Annotated[list[Path], typer.Argument(help="FILE.onnx, or FILE.cfg FILE.weights of Darknet.")],
    name: Annotated[str, typer.Option(help="Name of the model; default: the file's, in small letters.")] = "",
    task: TaskOption = None,
    labels: LabelsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    fit: FitOption = None,
    layout: LayoutOption = None,
    colours: Annotated[str, typer.Option(help="rgb or bgr: the order that the input takes.")] = "rgb",
    confidence: ConfidenceOption = None,
    iou: IouOption = None,
    licence: Annotated[str | None, typer.Option(help="A note of the model's licence.", show_default=False)] = None,
    precision: PrecisionOption = None,
    calibration: CalibrationOption = None,
    store: StoreOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Bring a model into the folder of models, where `workers start --model NAME` finds it.

    An ONNX file (YOLOv5, YOLOv8, YOLO11, other classifiers) gets what it does not say of itself from the flags, any
    batch where that is proved, and opset 17. A Darknet model (yolov3, yolov4, their tiny ones, Yolo-Fastest and others
    of the same layers) becomes such a file. With 80 classes and no --labels, they are COCO's. With --precision it is
    made fp16 or int8 at once, as `workers quantise` does it, and called NAME-fp16 or NAME-int8 unless --name says.

    Examples:

      workers import yolov5n.onnx --licence AGPL-3.0

      workers import mobilenet.onnx --labels names.txt --mean 127.5 --std 127.5 --fit stretch

      workers import parts.cfg parts_best.weights --name parts --labels parts.names

      workers import best.onnx --name parts-int8 --precision int8 --calibration pictures
    """
    hints = hints_of(task, labels, size, mean, std, fit, layout)
    settings = Settings(confidence=confidence, iou=iou)
    into = store or default_store()
    try:
        wanted = Wanted(precision, calibration)
        path = free(name or wanted.name(_main(files).stem.lower()), into, replace=replace)
        asked = _Asked(path, hints, colours, settings, licence, wanted, replace)
        if len(files) == 1:
            _onnx(files[0], asked)
        else:
            _darknet(files, asked)
    except (WorkersError, OSError) as error:
        raise failed(error) from None
    typer.echo(f"wrote {path} ({path.stat().st_size} bytes)" + (f", {precision}" if precision else ""))


def _main(files: list[Path]) -> Path:
    """The file that the model is named after."""
    match sorted(files, key=lambda file: file.suffix.lower()):
        case [one] if one.suffix.lower() == ".onnx":
            return one
        case [cfg, weights] if cfg.suffix.lower() == ".cfg" and weights.suffix.lower() == ".weights":
            return cfg
    said = " ".join(map(str, files))
    raise UsageError(f"{said}: a model is one ONNX file, or the two of a Darknet model: {_FORMS}")


def _onnx(file: Path, asked: _Asked) -> None:
    from workers import exports  # onnx takes long to import, and `workers start` needs none of it

    order = exports.Order(
        path=file,
        name=asked.path.stem,
        hints=asked.hints,
        colours=exports.colours(asked.colours),
        confidence=asked.settings.confidence,
        iou=asked.settings.iou,
        licence=asked.licence,
        wanted=asked.wanted,
        replace=asked.replace,
    )
    exported = exports.bring(order, asked.path.parent)
    typer.echo(_summary(exported.name, exported.model))
    for note in exported.notes:
        typer.echo(f"  {note}")


def _darknet(files: list[Path], asked: _Asked) -> None:
    from workers import darknet  # see above

    cfg, weights = sorted(files, key=lambda file: file.suffix.lower())
    hints = asked.hints
    if hints != Hints(names=hints.names, fit=hints.fit) or hints.fit == "crop" or asked.colours != "rgb":
        raise UsageError(
            f"{cfg}: its cfg and Darknet itself say task, size, scaling, layout and colours; only --labels,"
            " --fit letterbox or --fit stretch, --confidence, --iou, --licence are left to say"
        )
    path, extra = asked.path, asked.settings.written() | ({"license": asked.licence} if asked.licence else {})
    imported = darknet.bring(cfg, weights, path.stem, hints, path.parent, extra, asked.wanted, replace=asked.replace)
    typer.echo(f"{_summary(imported.name, imported.model)}, {counted(imported.boxes, 'box')}, any batch")
    if note := namesakes(imported.model.names):
        typer.echo(f"  {note}")


def _summary(name: str, model: Model) -> str:
    size = "x".join(map(str, model.size))
    return f"{name}: {counted(len(model.names), 'class')}, input {size}, {model.fit}"
