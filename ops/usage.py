"""What is wrong with how a command was called, said the same way by all of `gongwei`."""

from __future__ import annotations

from pathlib import Path

import typer

from broker import line as line_file
from broker.line import Line, LineError


def usage(message: str) -> typer.Exit:
    """Says `message` on standard error; raise what it returns (exit code 2)."""
    typer.echo(message, err=True)
    return typer.Exit(2)


def load(path: Path) -> Line:
    """The line file; one that cannot be used ends the command with its problems."""
    try:
        return line_file.load(path)
    except LineError as error:
        raise usage(str(error)) from None
