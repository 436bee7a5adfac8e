"""The line file of a process that nobody tells of a reload: read again when it changed on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker import line as line_file
from broker import log
from broker.line import Line, LineError

logger = log.get(__name__)

#: Seconds between two looks at the file.
EVERY: Final = 1.0


class Rereading:
    """Looks at `path` now and then. A file that cannot be used changes nothing, and is told once."""

    def __init__(self, path: Path, every: float = EVERY) -> None:
        self._path = path
        self._every = every
        self._look_at = 0.0
        self._seen = _state(path)

    def changed(self, now: float) -> Line | None:
        """The line, once for each change of the file; None: nothing new."""
        if now < self._look_at:
            return None
        self._look_at = now + self._every
        state = _state(self._path)
        if state == self._seen:
            return None
        self._seen = state
        try:
            return line_file.load(self._path)
        except LineError as error:
            logger.warning("the line file changed, and cannot be used: the old keys stay", problems=error.problems)
            return None


def _state(path: Path) -> tuple[int, int]:
    """When the file was written, and its size; zeros where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size
