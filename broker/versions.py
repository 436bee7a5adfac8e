"""Which version of each model a line wants: the sha256 of its file, as the line file says or as the file is."""

from __future__ import annotations

from pathlib import Path

from broker.line import Line
from broker.model_file import version


def wanted(line: Line, folder: Path) -> dict[str, str]:
    """Model -> sha256 in hex, of those that have one: the key `sha256` of the line file, else that of the file where it
    lies here. `folder` is the line file's. A file that cannot be read is nobody's wish."""
    found = {name: model.sha256 or _sha256(folder / model.file) for name, model in line.models.items()}
    return {name: digest for name, digest in found.items() if digest}


def _sha256(path: Path) -> str:
    try:
        return version(path)
    except (OSError, ValueError):  # a folder, no such file, or a name that none can have
        return ""
