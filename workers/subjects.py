"""What `workers check` is asked to look at: pictures, and folders of them; what is none is told with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clients.errors import SourceError
from clients.sources import pictures_in

#: Endings of files that hold many pictures.
VIDEOS: Final = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")


@dataclass(frozen=True, slots=True)
class Subject:
    """A file; `problem`: why it is not to be looked at, "" where it is."""

    path: Path
    problem: str = ""


def subjects(words: Iterable[Path], model: str) -> Iterator[Subject]:
    """Every picture that is meant, those of a folder by name; `model` is the word of the command for it."""
    for path in words:
        if path.is_dir():
            yield from _folder(path)
        else:
            yield Subject(path, _problem(path, model))


def _folder(folder: Path) -> Iterator[Subject]:
    try:
        yield from map(Subject, pictures_in(folder))
    except SourceError as error:
        yield Subject(folder, str(error))
    except OSError as error:
        yield Subject(folder, f"{folder}: cannot be read: {error.strerror}")


def _problem(path: Path, model: str) -> str:
    if not path.exists():
        return f"{path}: there is no such file or folder"
    if path.suffix.lower() in VIDEOS:
        return (
            f"{path}: is a video, and only pictures are looked at here. A whole line looks at it with\n"
            f"  gongwei demo --model {model} --camera {path}\n"
            "and a program like ffmpeg makes pictures of it, for instance one a second:\n"
            f"  ffmpeg -i {path} -vf fps=1 frame-%04d.png"
        )
    return ""
