"""`workers import`: models of other formats into the folder of models, as ONNX that says everything about itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from workers.arguments import fail, hints_of
from workers.engine import Signature
from workers.errors import ModelError, WorkersError
from workers.flags import LabelsOption, StoreOption
from workers.model import FIT, SOURCE, Hints, Model, describe
from workers.store import check_name, default_store, keep

#: Metadata key: the sha256 of each file that a model came from (SOURCE has their names).
HASHES: Final = "gongwei.source_sha256"


@dataclass(frozen=True, slots=True)
class Imported:
    """A model in the store; `boxes`: rows of its output."""

    name: str
    path: Path
    model: Model
    boxes: int


def bring(
    files: Annotated[list[Path], typer.Argument(help="FILE.cfg FILE.weights, of Darknet.")],
    name: Annotated[str, typer.Option(help="Name of the model; default: the cfg's, in small letters.")] = "",
    labels: LabelsOption = None,
    fit: Annotated[
        Literal["letterbox", "stretch"] | None,
        typer.Option(
            help="How pictures become its input; default: stretch, or letterbox where the cfg says letter_box=1."
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Bring a Darknet model into the folder of models, where `workers start --model NAME` finds it.

    yolov3, yolov3-tiny, yolov4, yolov4-tiny, Yolo-Fastest, and others of the same layers. With 80 classes and no
    --labels, they are COCO's.

    Examples:

      workers import yolov4-tiny.cfg yolov4-tiny.weights

      workers import parts.cfg parts_best.weights --name parts --labels parts.names
    """
    hints = hints_of(None, labels, None, None, None, fit)
    try:
        imported = darknet(*_pair(files), name, hints, store or default_store())
    except WorkersError as error:
        raise fail(str(error)) from None
    model = imported.model
    size = f"{model.size[0]}x{model.size[1]}"
    typer.echo(
        f"{imported.name}: {len(model.names)} classes, input {size}, {model.fit}, {imported.boxes} boxes, any batch"
    )
    typer.echo(f"wrote {imported.path} ({imported.path.stat().st_size} bytes)")


def darknet(cfg: Path, weights: Path, name: str, hints: Hints, store: Path) -> Imported:
    """Import a Darknet model as `name` ("": the cfg's) into `store`. Raises ModelError; then nothing is written."""
    from workers.zoo.darknet import Detector  # onnx takes long to import, and `workers start` needs none of it

    name = check_name(name or cfg.stem.lower())
    detector = Detector.load(cfg, weights)
    fit = hints.fit or ("letterbox" if detector.network.letterbox else "stretch")
    said = {"task": "detect", FIT: fit}
    signature = Signature((None, *detector.network.input), ((None, detector.boxes, 5 + detector.classes),), "", said)
    model = describe(signature, hints, str(cfg))
    written = detector.model(
        said
        | {
            "names": str(dict(enumerate(model.names))),
            "imgsz": str(list(model.size)),
            SOURCE: f"{cfg.name}, {weights.name}",
            HASHES: f"{_sha256(cfg)}, {_sha256(weights)}",
        }
    )
    return Imported(name, keep(name, written.SerializeToString(), store), model, detector.boxes)


def _pair(files: list[Path]) -> tuple[Path, Path]:
    """The cfg and the weights, in whichever order they were said."""
    match sorted(files, key=lambda file: file.suffix.lower()):
        case [cfg, weights] if cfg.suffix.lower() == ".cfg" and weights.suffix.lower() == ".weights":
            return cfg, weights
    said = " ".join(map(str, files))
    raise ModelError(f"{said}: a Darknet model is two files: workers import FILE.cfg FILE.weights")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
