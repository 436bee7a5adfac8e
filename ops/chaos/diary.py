"""Diaries: what a camera was told and what a consumer received, one JSON line each, written before anything follows.

A line is one write to a file opened for appending, so a process that is killed leaves every line that it wrote; a line
without its end was never written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ops.chaos.answer import Answer


class Boot(Struct, frozen=True, tag=True):
    """The first line of a camera's diary: one start of it."""

    camera: str
    boot: str


class Sent(Struct, frozen=True, tag=True):
    """Frame `seq` is about to be sent, captured at a monotonic instant; `poison`: the model that it is to kill."""

    seq: int
    at: float
    poison: str = ""


class Accepted(Struct, frozen=True, tag=True):
    """The camera was told that the ledger has frame `seq`."""

    seq: int


class Settled(Struct, frozen=True, tag=True):
    """The camera was told at a monotonic instant how frame `seq` ended, `seconds` after its capture."""

    seq: int
    outcome: str
    at: float
    seconds: float


class Bye(Struct, frozen=True, tag=True):
    """The camera ended in order, with nothing unsettled."""


class Received(Struct, frozen=True, tag=True):
    """The consumer received publication `seq` of a ledger at a monotonic instant, with an answer of each model. The
    line is its cursor as well: one write, so that a kill leaves both or none."""

    ledger: str
    seq: int
    camera: str
    boot: str
    frame: int
    outcome: str
    answers: dict[str, Answer] = {}
    at: float = 0.0


class Gone(Struct, frozen=True, tag=True):
    """The join told the consumer that it no longer has what this had not taken."""

    text: str


Entry = Boot | Sent | Accepted | Settled | Bye | Received | Gone

_DECODER: Final = msgspec.json.Decoder(Entry)


class Diary:
    """Appends to the file at `path`; any thread may write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def __enter__(self) -> Diary:
        """Open, and cut off a line that was not finished."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file = os.open(self._path, flags, 0o600)
        with self._path.open("r+b") as file:
            file.truncate(len(_whole(file.read())))
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def write(self, entry: Entry) -> None:
        """One line, in one write."""
        os.write(self._file, msgspec.json.encode(entry) + b"\n")


def read(path: Path) -> Iterator[Entry]:
    """All entries of a diary, oldest first; none of one that was never begun."""
    if path.exists():
        for line in _whole(path.read_bytes()).splitlines():
            yield _DECODER.decode(line)


def last(path: Path) -> Entry | None:
    """The newest entry."""
    entry = None
    for entry in read(path):  # noqa: B007  the last one is wanted
        pass
    return entry


def _whole(data: bytes) -> bytes:
    """Without what follows the last line end."""
    return data[: data.rfind(b"\n") + 1]
