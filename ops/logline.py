"""One line of a child's log: read as the JSON that `broker.log` writes, or taken as it is. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from rich.text import Text

#: Colours of the processes' names, by their order.
PALETTE: Final = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
_LEVELS: Final = {"warning": "yellow", "error": "bold red", "critical": "bold white on red", "debug": "dim"}
#: Keys that have a place of their own in the readable line.
_PLACED: Final = frozenset({"timestamp", "level", "event", "process", "exception", "logger", "logger_name"})


class LogLine(NamedTuple):
    """What process `name` said. `at`: ISO time, empty for a line that was not JSON; `fields`: the rest."""

    name: str
    event: str
    level: str = ""
    at: str = ""
    fields: Mapping[str, Any] = {}
    exception: str = ""


def read(name: str, text: str) -> LogLine:
    """Read a line. What is not an object with an `event` (a traceback, a library's message) is the event itself."""
    try:
        record = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or "event" not in record:
        return LogLine(name, text)
    return LogLine(
        name,
        event=str(record["event"]),
        level=str(record.get("level", "")),
        at=str(record.get("timestamp", "")),
        fields={key: value for key, value in record.items() if key not in _PLACED},
        exception=str(record.get("exception", "")),
    )


def render(line: LogLine, *, colour: str, width: int = 0) -> Text:
    """The line for people: `12:34:56.789 name  event  key=value`; names are padded to `width`."""
    text = Text(_clock(line.at), style="dim", overflow="fold")
    text.append(f" {line.name:<{width}} ", style=colour)
    if line.level and line.level != "info":
        text.append(f"{line.level} ", style=_LEVELS.get(line.level, ""))
    text.append(_shown(line.event), style=_LEVELS.get(line.level, ""))
    for key, value in line.fields.items():
        text.append(f" {key}=", style="dim")
        text.append(_shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    if line.exception:
        text.append("\n" + "\n".join(map(_shown, line.exception.splitlines())), style="dim")
    return text


def to_json(line: LogLine, now: str) -> str:
    """The line for machines: one JSON object whose `process` is the name that the supervisor knows."""
    record = {
        "timestamp": line.at or now,
        "level": line.level or "info",
        "process": line.name,
        "event": line.event,
        **line.fields,
    }
    if line.exception:
        record["exception"] = line.exception
    return json.dumps(record, ensure_ascii=False)


def _clock(at: str) -> str:
    """The local time of day, in milliseconds; now for a line that has none."""
    try:
        moment = datetime.fromisoformat(at).astimezone() if at else datetime.now()
    except ValueError:
        return at
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def _shown(text: str) -> str:
    """A peer's control characters must not steer the operator's terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text.expandtabs(4))
