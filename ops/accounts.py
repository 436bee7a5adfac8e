"""The accounts that a run leaves behind as files: the cameras' reports, and what a consumer wrote down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ops.report import Consumed, Told

#: Bytes of the consumer's file that are read at once.
CHUNK: Final = 1 << 20


class Tail:
    """What a consumer received, from the JSON lines that it still writes to `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.consumed = Consumed()
        #: Lines that are not what a consumer writes.
        self.unreadable = 0
        self._offset = 0
        self._rest = b""

    def read(self) -> int:
        """Take the lines that were completed since the last call; returns how many."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                taken = 0
                while chunk := file.read(CHUNK):
                    self._offset += len(chunk)
                    *lines, self._rest = (self._rest + chunk).split(b"\n")
                    taken += len(lines)
                    for line in lines:
                        self._take(line)
                return taken
        except FileNotFoundError:
            return 0

    def _take(self, line: bytes) -> None:
        try:
            body = json.loads(line)
        except ValueError:
            body = None
        if isinstance(body, dict):
            self.consumed.take(body)
        else:
            self.unreadable += 1


def read_told(path: Path) -> Told | None:
    """A camera's report; None when there is none, or none that can be read: its process did not get that far."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return told(record) if isinstance(record, dict) else None


def told(record: Mapping[str, Any]) -> Told:
    """The counts of `clients camera --report`."""
    return Told(
        sent=record.get("sent", 0),
        resent=record.get("resent", 0),
        accepted=record.get("accepted", 0),
        complete=record.get("complete", 0),
        incomplete=record.get("incomplete", 0),
        rejected=_count(record.get("rejected", 0)),
        missed=_count(record.get("skipped", 0)),
        seconds=record.get("seconds", 0.0),
        latencies=record.get("latencies", []),
    )


def _count(value: int | Mapping[str, int]) -> int:
    """A count, or counts by reason."""
    return sum(value.values()) if isinstance(value, Mapping) else value
