"""Where a consumer stands, in a file: whatever kills it, the file holds a position that it once had."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from clients.cursor import Position
from clients.errors import ClientError

_READ: Final = msgspec.json.Decoder(Position)


class BookmarkError(ClientError):
    """The file cannot be read or written, or holds no position."""


class Bookmark:
    """A position of the published stream at `path`, as JSON: ["<ledger_id>", <seq>].

    Save what has been dealt with: after a crash a consumer goes on from there, gets a few results again, misses none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved: Position | None = None

    def load(self) -> Position | None:
        """The position that was saved last; None: never one. Raises BookmarkError."""
        try:
            self._saved = _READ.decode(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BookmarkError(f"{self.path}: cannot be read: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise BookmarkError(f"{self.path}: holds no position ({error}); delete it to begin anew") from error
        return self._saved

    def save(self, position: Position) -> None:
        """Replace what the file holds, at once and for good: written beside it, flushed, renamed. Raises
        BookmarkError."""
        if position == self._saved:
            return
        beside = self.path.with_name(f"{self.path.name}.new")
        try:
            with beside.open("wb") as file:
                file.write(msgspec.json.encode(position))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as error:
            raise BookmarkError(f"{self.path}: cannot be written: {error.strerror}") from error
        _flush_folder(self.path.parent)
        self._saved = position


def _flush_folder(folder: Path) -> None:
    """Make a rename last. Windows cannot open a folder, and does not need to."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
