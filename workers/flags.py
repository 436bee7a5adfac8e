"""The command line's flags about models, and a line file's words, made into ModelOptions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import typer

from broker.line import Line, Model
from workers.engine.fake import PREFIX, Fake
from workers.errors import ModelError, UsageError
from workers.layout import Layout
from workers.lookup import find, split
from workers.metadata import Precision
from workers.model import Hints, Task
from workers.options import ModelOptions
from workers.placement import Fit
from workers.store import default_store

T = TypeVar("T")
Word = TypeVar("Word", bound=str)

LineOption = Annotated[Path | None, typer.Option("--line", help="The line file (TOML).", show_default=False)]
StoreOption = Annotated[Path | None, typer.Option(help="Folder of models; default: this user's gongwei/models.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, or cuda where onnxruntime has it; default: the line file's, else cpu.")
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option(
        help="Least score of a detection; where no flag, line file or model says it: 0.25, less where a rule asks.",
        min=0,
        max=1,
    ),
]
IouOption = Annotated[
    float | None,
    typer.Option(
        help="Boxes of a class that overlap by more are one; where no flag, line file or model says it: 0.45.",
        min=0,
        max=1,
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
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Write over a model of that name.")]
PrecisionOption = Annotated[
    Precision | None, typer.Option(help="What the model is to compute in, for engines on GPUs; default: as it comes.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="For int8: some hundred pictures as the line makes them.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What holds for every model of the command; None: the line file's value, else the default. Delays in seconds,
    `confidence` and `iou` from 0 to 1."""

    threads: int | None = None
    max_batch: int | None = None
    max_delay: float | None = None
    device: str | None = None
    engine_threads: int | None = None
    confidence: float | None = None
    iou: float | None = None
    store: Path | None = None
    hints: Hints = field(default_factory=Hints)


def model_options(word: str, flags: Flags, line: Line | None, folder: Path) -> ModelOptions:
    """Of one `--model NAME[=FILE.onnx]` or `NAME=fake:...`; `folder` is the line file's. Raises WorkersError."""
    name, where = (word, "") if line is not None and word in line.models else split(word)
    written = line.models.get(name) if line is not None else None
    sizes = written or Model()
    return ModelOptions(
        name=name,
        source=_source(name, where, written, flags, folder),
        threads=_first(flags.threads, sizes.threads),
        max_batch=_first(flags.max_batch, sizes.max_batch),
        max_delay=_first(flags.max_delay, sizes.max_delay),
        device=_first(flags.device, sizes.device),
        engine_threads=_first(flags.engine_threads, sizes.engine_threads),
        confidence=_first(flags.confidence, sizes.confidence),
        iou=_first(flags.iou, sizes.iou),
        least_score=least_score(line, name),
        hints=flags.hints,
    )


def least_score(line: Line | None, model: str) -> float:
    """The least score (0 to 1) that a rule asks of `model`, at a station where a camera's frames go to it: a worker
    must report it, so that no rule waits for what was cut here. 1 where none does."""
    if line is None:
        return 1.0
    stations = {line.cameras[camera].station for camera, route in line.routes.items() if model in route.models}
    rules = [line.stations[station].rules for station in stations]
    return min([1.0, *(rule.least_score for rule in rules if rule is not None)])


def hints(
    *,
    task: str | None,
    labels: Path | None,
    size: str | None,
    mean: str | None,
    std: str | None,
    fit: str | None,
    layout: str | None = None,
) -> Hints:
    """What the flags say about a model. Raises UsageError naming the flag and what it takes."""
    return Hints(
        task=_choice("--task", task, get_args(Task)),
        names=_labels(labels) if labels is not None else None,
        size=_size(size) if size is not None else None,
        mean=_numbers("--mean", mean) if mean is not None else None,
        std=_numbers("--std", std) if std is not None else None,
        fit=_choice("--fit", fit, get_args(Fit)),
        layout=_choice("--layout", layout, get_args(Layout)),
    )


def _source(name: str, where: str, written: Model | None, flags: Flags, folder: Path) -> Path | Fake:
    if not where and written is not None:
        where = written.file if written.file.startswith(PREFIX) else ""
    if where.startswith(PREFIX):
        return Fake.parse(where.removeprefix(PREFIX))
    if where:
        path = Path(where)
        if not path.is_file():
            raise ModelError(f"{where}: there is no such file (model {name})")
        return path
    store = flags.store or default_store()
    if written is not None and written.file:
        return find(name, written=written.file, folder=folder, store=store)
    return find(name, store=store)


def _first(flag: T | None, otherwise: T) -> T:
    return otherwise if flag is None else flag


def _choice(flag: str, word: str | None, known: tuple[Word, ...]) -> Word | None:
    found = next((choice for choice in known if choice == word), None)
    if word is not None and found is None:
        raise UsageError(f"{flag} {word}: one of {', '.join(known)}")
    return found


def _labels(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--labels {path}: cannot be read as UTF-8 text: {error}") from None
    # Not splitlines(): it ends a line at letters that may stand in a name, too.
    names = tuple(name.strip() for name in text.rstrip().split("\n"))
    if names == ("",):
        raise UsageError(f"--labels {path}: is empty; write one name per line, as many as classes")
    if "" in names:
        raise UsageError(
            f"--labels {path}:{names.index('') + 1}: an empty line; write one name per line, in their order"
        )
    return names


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or "0" in match.groups():
        raise UsageError(f"--size {text}: HEIGHTxWIDTH in pixels, as in 640x640")
    return int(match[1]), int(match[2])


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3):
        raise UsageError(f"{flag} {text}: one number, or three for red, green, blue: 123.675,116.28,103.53")
    if 0 < max(numbers) < 1:  # as PyTorch's own examples write them: every answer would be wrong
        levels = ",".join(f"{255 * share:g}" for share in numbers)
        raise UsageError(f"{flag} {text}: in grey levels from 0 to 255, not as shares of them: {flag} {levels}")
    return numbers
