"""A Darknet model (cfg and weights) into the folder of models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workers.engine import Signature
from workers.metadata import FIT, PRECISION, SOURCE, SOURCE_SHA256
from workers.model import Hints, Model, describe
from workers.onnxfile import content, sha256
from workers.precision.wanted import AS_IT_COMES, Wanted
from workers.store import keep
from workers.zoo.darknet import Detector


@dataclass(frozen=True, slots=True)
class Imported:
    """A model in the store; `boxes`: rows of its output."""

    name: str
    path: Path
    model: Model
    boxes: int


def bring(
    cfg: Path,
    weights: Path,
    name: str,
    hints: Hints,
    store: Path,
    extra: dict[str, str] | None = None,
    wanted: Wanted = AS_IT_COMES,
    *,
    replace: bool = False,
) -> Imported:
    """Import a Darknet model as `name` into `store`, in the precision `wanted`; `extra`: more metadata;
    `replace`: an earlier one of that name. Raises ModelError; then nothing is written."""
    detector = Detector.load(cfg, weights)
    fit = hints.fit or ("letterbox" if detector.network.letterbox else "stretch")
    said = {"task": "detect", FIT: fit} | (extra or {})
    signature = Signature((None, *detector.network.input), ((None, detector.boxes, 5 + detector.classes),), "", said)
    model = describe(signature, hints, str(cfg))
    written = detector.model(
        said
        | {
            "names": str(dict(enumerate(model.names))),
            "imgsz": str(list(model.size)),
            PRECISION: "fp32",
            SOURCE: f"{cfg.name}, {weights.name}",
            SOURCE_SHA256: f"{sha256(cfg)}, {sha256(weights)}",
        }
    )
    made = wanted.made(written, str(cfg))
    path = keep(name, content(made, str(cfg)), store, replace=replace)
    return Imported(name, path, model, detector.boxes)
