"""What a line reads on this machine, model files, cameras' sources, keys: which is not there. No restart helps."""

from __future__ import annotations

from pathlib import Path

from broker import security
from broker.document import dotted
from broker.keyring import Keyring
from broker.keys import KeysError
from broker.line import CameraEntry, Line, Model, Role
from clients import publish
from clients.errors import SourceError
from clients.sources import open_source
from ops.ports import BOUND
from workers.engine.fake import PREFIX
from workers.errors import AbsentError, ModelError
from workers.lookup import find
from workers.store import default_store


def missing(line: Line, path: Path) -> list[str]:
    """The problems of the line file at `path`: where, which key, what is not there."""
    found = {
        **{("models", name, "file"): model_problem(name, model, path) for name, model in line.models.items()},
        **{("cameras", name, "source"): source_problem(entry, path) for name, entry in line.cameras.items()},
    }
    return [f"{path}: {dotted(key)}: {problem}" for key, problem in found.items() if problem]


def unsafe(line: Line, path: Path, *, insecure: bool) -> list[str]:
    """What keeps a line with [security] from its keys, or one without from the network. `insecure`: it may be open."""
    if line.security is not None:
        return [f"{path}: {problem}" for problem in without_key(line, path)]
    ends = {name: getattr(line.endpoints, name) for name in BOUND}
    found = {} if insecure else security.exposed(ends)
    return [f"{path}: {security.refusal(found)}"] if found else []


def without_key(line: Line, path: Path) -> list[str]:
    """A problem for each process of this machine that would not find its secret key."""
    here: list[tuple[Role, str]] = [("broker", ""), ("join", ""), ("recorder", "")]
    here += [("worker", "")] if any(model.file for model in line.models.values()) else []
    here += [("camera", name) for name, entry in line.cameras.items() if entry.source]
    problems = []
    for role, camera in here:
        try:
            Keyring(line, path, None).certificate(role, camera)
        except KeysError as error:
            problems.append(str(error))
    return problems


def model_problem(name: str, model: Model, path: Path) -> str:
    """Why workers would not find the model's file, "" if they do or are started elsewhere."""
    if not model.file or model.file.startswith(PREFIX):
        return ""
    try:
        find(name, store=default_store(), written=model.file, folder=path.parent)
    except AbsentError as error:
        return f"{error.brief}; `workers models` lists what a name finds"
    except ModelError as error:
        return str(error)
    return ""


def here(name: str) -> bool:
    """Whether this user's folder of models, or the package, has a model of this name."""
    try:
        find(name, store=default_store(), folder=default_store())
    except ModelError:
        return False
    return True


def source_problem(entry: CameraEntry, path: Path) -> str:
    """Why the camera would end at once, "" if its source is there, live or synthetic, or if it is started elsewhere."""
    if not entry.source:
        return ""
    try:
        open_source(publish.beside(path, entry.source), rate=entry.rate).close()
    except SourceError as error:
        return str(error)
    return ""
