"""The annotated pictures of one run of `gongwei demo`: a folder of its own, beside those of earlier runs."""

from __future__ import annotations

import itertools
from contextlib import suppress
from datetime import datetime
from pathlib import Path


def claim(folder: Path, now: datetime) -> Path:
    """Make a folder inside `folder` that no run had before, named after `now`. Raises OSError where none can be made or
    nothing be written into it."""
    name = now.strftime("%Y-%m-%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(2):
        try:
            made = folder / name
            made.mkdir()
            break
        except FileExistsError:
            name = f"{now:%Y-%m-%d-%H%M%S}-{number}"
    trial = made / "trial"
    trial.write_bytes(b"")
    trial.unlink()
    return made


def count(folder: Path) -> int:
    """The pictures below a run's folder."""
    return sum(1 for _ in folder.rglob("*.jpg"))


def leave(folder: Path) -> None:
    """Take away a run's folder that nothing was written into, and the one that holds it where that is empty, too."""
    with suppress(OSError):  # not empty
        folder.rmdir()
        folder.parent.rmdir()
