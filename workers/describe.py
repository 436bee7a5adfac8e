"""Writes into an ONNX file what it does not say about itself, so that a line file needs only its name."""

from __future__ import annotations

from pathlib import Path

from onnx import helper

from workers import onnxfile, sigmoid
from workers.engine import Signature
from workers.errors import ModelError
from workers.layout import LAYOUT
from workers.metadata import FIT, MEAN, STD, names_in, namesakes
from workers.model import Hints, check_names
from workers.onnxfile import load, shape


def describe(source: Path, target: Path, hints: Hints) -> dict[str, str]:
    """Copy the model at `source` to `target` with `hints` in its metadata; returns all of that metadata.

    Weights that lie in files of their own are not copied. Raises ModelError, also for names that are not as many as the
    model's classes, and for a classifier of one class or with a sigmoid; then nothing is written.
    """
    model = load(source, weights=False)
    metadata = onnxfile.metadata(model) | written(hints)
    outputs = tuple(shape(output) for output in model.graph.output)
    check_names(Signature((), outputs, "", metadata), hints, str(source))
    if [len(one) for one in outputs] == [2]:  # a classifier's
        sigmoid.refuse(model, str(source))
    helper.set_model_props(model, metadata)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(model.SerializeToString())
    return metadata


def note(metadata: dict[str, str], where: str) -> str:
    """What a person should know of the classes' names in the file at `where`; "" where there is nothing."""
    try:
        return namesakes(names_in(metadata, where) or ())
    except ModelError as error:
        return str(error)


def written(hints: Hints) -> dict[str, str]:
    """The hints as metadata: Ultralytics' keys where it has one."""
    said = {
        "task": hints.task,
        "names": str(dict(enumerate(hints.names))) if hints.names is not None else None,
        "imgsz": str(list(hints.size)) if hints.size else None,
        MEAN: _listed(hints.mean),
        STD: _listed(hints.std),
        FIT: hints.fit,
        LAYOUT: hints.layout,
    }
    return {key: value for key, value in said.items() if value is not None}


def _listed(numbers: tuple[float, ...] | None) -> str | None:
    return ",".join(f"{number:g}" for number in numbers) if numbers else None
