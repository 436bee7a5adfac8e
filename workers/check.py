"""`workers check`: a model on picture files, with the code of the workers, without a broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import cv2
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker import log
from broker.plural import counted
from clients.draw import annotate
from workers import image
from workers.arguments import fail, failed, hints_of, line_of
from workers.errors import ImageError, OutputError, WorkersError
from workers.flags import (
    ConfidenceOption,
    DeviceOption,
    EngineThreadsOption,
    FitOption,
    Flags,
    IouOption,
    JsonOption,
    LabelsOption,
    LayoutOption,
    LineOption,
    MeanOption,
    SizeOption,
    StdOption,
    StoreOption,
    TaskOption,
    model_options,
)
from workers.image import Picture
from workers.options import ModelOptions
from workers.runner import Runner
from workers.subjects import Subject, subjects
from workers.worker import cores

#: Where annotated pictures go unless --save says otherwise.
ANNOTATED: Final = Path("annotated")


def check(
    model: Annotated[str, typer.Argument(help="NAME, FILE.onnx or NAME=FILE.onnx.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    save: Annotated[
        Path | None, typer.Option(help="Folder of the annotated pictures; default: annotated, or none with --json.")
    ] = None,
    line: LineOption = None,
    engine_threads: EngineThreadsOption = None,
    device: DeviceOption = None,
    confidence: ConfidenceOption = None,
    iou: IouOption = None,
    store: StoreOption = None,
    task: TaskOption = None,
    labels: LabelsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    fit: FitOption = None,
    layout: LayoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at pictures with the code of the workers, without a broker: what is found is printed, and drawn on copies.

    With --json, one object per picture. What is no picture, or not there, is said, and the others are looked at all
    the same; the exit code is 1 then.

    Examples:

      workers check yolov5n.onnx bus.jpg

      workers check yolov5n pictures --save found

      workers check mobilenet.onnx cat.png --labels names.txt --mean 127.5 --std 127.5 --fit stretch --json
    """
    log.configure(level="warning")
    flags = Flags(
        device=device,
        engine_threads=engine_threads,
        confidence=confidence,
        iou=iou,
        store=store,
        hints=hints_of(task, labels, size, mean, std, fit, layout),
    )
    word = f"model={model}" if model.endswith(".onnx") and "=" not in model else model
    folder = save or (None if as_json else ANNOTATED)
    try:
        options = model_options(word, flags, line_of(line), line.parent if line else Path())
        look = Look(options, _called(model, options), folder, as_json)
        asked = list(subjects(images, model))
        for number, subject in enumerate(asked, 1):
            look(number, subject)
    except (WorkersError, OSError) as error:
        raise failed(error) from None
    if look.refused:
        raise fail(f"{look.refused} of {len(asked)} not looked at: see above")


def _called(word: str, options: ModelOptions) -> str:
    """What pictures are named after: the model, or its file where only that was said."""
    return Path(word).stem if word.endswith(".onnx") and "=" not in word else options.name


class Look:
    """Looks at one picture after another with the model of `options`, tells what is found, and draws it into `folder`
    (None: nowhere) under the name of `called`. `refused` counts what could not be looked at.

    Raises WorkersError where the model cannot be loaded.
    """

    def __init__(self, options: ModelOptions, called: str, folder: Path | None, as_json: bool) -> None:
        self.refused = 0
        self._name = options.name
        self._called = called
        self._folder = folder
        self._as_json = as_json
        self._runner = Runner.load(options, options.engine_threads or cores())
        self._runner.warm_up()
        if advice := self._runner.advice():
            typer.echo(advice, err=True)

    def __call__(self, number: int, subject: Subject) -> None:
        """Picture `number`. Raises EngineError, and OSError where what was found cannot be drawn."""
        path, problem = subject.path, subject.problem
        try:
            picture = None if problem else image.load(path)
            body = None if picture is None else self._runner.look(picture)
        except ImageError as error:
            problem = error.detail
        except OutputError as error:
            problem = f"{path}: {error}"
        if problem or picture is None or body is None:
            self.refused += 1
            typer.echo(problem, err=True)
            return
        drawn = None if self._folder is None else self._folder / f"{self._called}-{number}-{path.stem}.jpg"
        if drawn is not None:
            draw(drawn, picture, {"camera": self._name, "seq": path.name, "results": {self._name: body}})
        _tell(path, body, drawn, self._as_json)


def draw(path: Path, picture: Picture, frame: dict[str, Any]) -> None:
    """Write a copy of the picture with what was found on it (see `clients.draw.annotate`) to `path`, a JPEG.

    Raises ImageError or OSError.
    """
    drawn = annotate(picture, frame)
    encoded, data = cv2.imencode(".jpg", drawn)
    if not encoded:
        raise ImageError("unencodable", f"{path}: a picture of {drawn.shape[1]}x{drawn.shape[0]} makes no JPEG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def show(path: Path, body: dict[str, Any]) -> None:
    """Print a result body as a table."""
    entries = body.get("detections", body.get("classes", []))
    # A table's own title is as narrow as the table.
    typer.echo(f"{path}: {_found(body, len(entries))}{_warning(body)}")
    if entries:
        Console().print(_boxes(entries) if "detections" in body else _classes(entries))


def _boxes(detections: list[dict[str, Any]]) -> Table:
    table = Table("class", "score", "box", "area")
    for one in detections:
        box = " ".join(f"{edge:.0f}" for edge in one["box"])
        table.add_row(Text(one["name"]), f"{one['score']:.3f}", box, f"{one['area']:.0f}")
    return table


def _classes(best: list[dict[str, Any]]) -> Table:
    table = Table("class", "score")
    for one in best:
        table.add_row(Text(one["name"]), f"{one['score']:.3f}")
    return table


def _tell(path: Path, body: dict[str, Any], drawn: Path | None, as_json: bool) -> None:
    if as_json:
        saved = {} if drawn is None else {"annotated": str(drawn)}
        typer.echo(json.dumps({"image": str(path)} | body | saved))
        return
    show(path, body)
    if drawn is not None:
        typer.echo(f"wrote {drawn}")


def _warning(body: dict[str, Any]) -> str:
    return " of random weights, which mean nothing" if body.get("random") else ""


def _found(body: dict[str, Any], count: int) -> str:
    if body["task"] == "classify":
        return counted(count, "best class")
    return counted(count, "detection")
