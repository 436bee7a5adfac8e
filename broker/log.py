"""Logging of every process: structlog lines on stderr, for people (a console) or for machines (JSON lines).

A process calls `configure` once, at its start; a module says `logger = log.get(__name__)` and never configures.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LEVELS: Final = ("debug", "info", "warning", "error", "critical")


def configure(*, json: bool = False, level: str = "info", process: str = "") -> None:
    """Log to stderr from `level` up: JSON lines if `json` or GONGWEI_LOG=json, else for people.

    Colours only on a terminal, and not where NO_COLOR is set. `process` ("broker", "worker a1") stands in every line;
    left empty, it is the process id. Raises ValueError for an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is unknown: use one of {', '.join(LEVELS)}")
    _Form.json = json or os.environ.get("GONGWEI_LOG", "") == "json"
    atexit.unregister(_let_go)
    atexit.register(_let_go)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _Named(process or f"pid {os.getpid()}"),
            *(_for_machines() if _Form.json else _for_people()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_stderr_logger,
        # Not cached: the lookup of sys.stderr at each line is what lets a caller replace it (tests, services).
        cache_logger_on_first_use=False,
    )


def is_json() -> bool:
    """Whether machines read the log, as `configure` was told."""
    return _Form.json


def get(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `logger_name`; `.bind(camera=...)` adds more. Usable before `configure`."""
    logger: FilteringBoundLogger = structlog.get_logger(logger_name=name)
    return logger


class _Form:
    """Of the lines of this process."""

    json = False


class _Named:
    """Processor that adds the name of this process (a context variable would be lost in each new thread)."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event.setdefault("process", self._process)
        return event


def _for_machines() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
        structlog.processors.JSONRenderer(sort_keys=True),
    ]


def _for_people() -> list[Processor]:
    return [
        _escape_unprintable,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
        structlog.dev.ConsoleRenderer(
            colors=_wants_colour(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        ),
    ]


def _escape_unprintable(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """What a peer sent may be logged; its escape sequences and line breaks must not reach the terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = value.encode("unicode_escape").decode("ascii")
    return event


def _wants_colour() -> bool:
    if os.environ.get("NO_COLOR") or sys.stderr is None or not sys.stderr.isatty():
        return False
    return sys.platform != "win32" or importlib.util.find_spec("colorama") is not None


class _Lost:
    """Lines that could not be written. Any thread may count; under load one more or less does not matter."""

    lines = 0
    told = 0


def samples() -> dict[tuple[str, ...], float]:
    """How many lines could not be written, once there are any; for `metrics.served`, callable from any thread."""
    return {("log_lines_lost_total",): _Lost.lines} if _Lost.lines else {}


class _StderrLogger:
    """One line to `stream` for each call. A line that cannot be written is lost and counted, never raised: no process
    may end, and no loop stand still, because nobody can read what it says. The next line that can be is followed by one
    that says how many were lost."""

    def __init__(self, stream: TextIO) -> None:
        self._logger = structlog.WriteLogger(stream)

    def msg(self, message: str) -> None:
        try:
            self._logger.msg(message)
        except (OSError, ValueError):  # ValueError: the stream is closed
            _Lost.lines += 1
            return
        missing = _Lost.lines - _Lost.told
        if missing:
            _Lost.told += missing
            get(__name__).warning("log lines could not be written", lost=missing)

    debug = info = warning = error = critical = msg


def _let_go() -> None:
    """At the end: what cannot be written now will never be. Python would end with code 120 for it, as if it failed."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = None


def _stderr_logger(*_: Any) -> Any:
    # A windowed or detached process has no stderr at all: its lines go nowhere rather than stop it.
    return structlog.ReturnLogger() if sys.stderr is None else _StderrLogger(sys.stderr)
