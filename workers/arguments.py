"""What several commands of `workers` read from their options, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import typer

from broker import line as line_file
from broker.line import Line, LineError
from workers.errors import UsageError, WorkersError
from workers.flags import hints
from workers.model import Hints


def fail(message: str, code: int = 1) -> typer.Exit:
    """To be raised: the message goes to stderr."""
    typer.echo(message, err=True)
    return typer.Exit(code)


def failed(error: WorkersError | OSError) -> typer.Exit:
    """To be raised: the error's text goes to stderr; 2 for words that mean nothing, else 1."""
    return fail(str(error), 2 if isinstance(error, UsageError) else 1)


def line_of(path: Path | None) -> Line | None:
    """The line file, if one was named. Raises typer.Exit where it is wrong."""
    try:
        return line_file.load(path) if path is not None else None
    except LineError as error:
        raise fail(str(error), 2) from None


def hints_of(
    task: str | None,
    labels: Path | None,
    size: str | None,
    mean: str | None,
    std: str | None,
    fit: str | None,
    layout: str | None = None,
) -> Hints:
    """What the options say about a model. Raises typer.Exit where one is wrong."""
    try:
        return hints(task=task, labels=labels, size=size, mean=mean, std=std, fit=fit, layout=layout)
    except WorkersError as error:
        raise fail(str(error), 2) from None
