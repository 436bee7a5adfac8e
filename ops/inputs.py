"""What a line reads on this machine, model files and cameras' sources: which of it is not there. No restart helps."""

from __future__ import annotations

from pathlib import Path

from broker.document import dotted
from broker.line import CameraEntry, Line, Model
from clients import publish
from clients.errors import SourceError
from clients.sources import open_source
from workers.engine.fake import PREFIX


def missing(line: Line, path: Path) -> list[str]:
    """The problems of the line file at `path`: where, which key, what is not there."""
    found = {
        **{("models", name, "file"): model_problem(model, path) for name, model in line.models.items()},
        **{("cameras", name, "source"): source_problem(entry, path) for name, entry in line.cameras.items()},
    }
    return [f"{path}: {dotted(key)}: {problem}" for key, problem in found.items() if problem]


def model_problem(model: Model, path: Path) -> str:
    """Why workers would not find the model's file, "" if they do or are started elsewhere."""
    file = path.parent / model.file
    if not model.file or model.file.startswith(PREFIX) or file.is_file():
        return ""
    return f"no file {file}"


def source_problem(entry: CameraEntry, path: Path) -> str:
    """Why the camera would end at once, "" if its source is there, live or synthetic, or if it is started elsewhere."""
    if not entry.source:
        return ""
    try:
        open_source(publish.beside(path, entry.source), rate=entry.rate).close()
    except SourceError as error:
        return str(error)
    return ""
