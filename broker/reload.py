"""The `broker reload` command: a running broker is given a changed line file, and says what that changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker import entry, versions, wire
from broker import line as line_file
from broker.document import dotted
from broker.keyring import BrokerKey, KeyOption, Keyring
from broker.line import Line, LineError
from broker.operator import Operator, Unanswered


def reload(
    line: Annotated[Path, typer.Argument(help="The changed line file.")],
    control: Annotated[str, typer.Option(help="The broker's control endpoint; default: the line file's.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the broker.")] = 5.0,
    key: KeyOption = None,
    broker_key: BrokerKey = "",
) -> None:
    """Give a running broker a changed line file (routes, rules, cameras, models). An invalid one changes nothing.

    Example:  broker reload line.toml
    """
    try:
        described = line_file.load(line)
    except LineError as error:
        raise entry.usage(str(error)) from None
    message = wire.Reload(text=line.read_text(encoding="utf-8"), versions=versions.wanted(described, line.parent))
    with entry.key_errors():
        credentials = Keyring(described, line, key).credentials("operator", "broker", broker_key)
    try:
        with Operator(control or described.endpoints.control, timeout, credentials) as operator:
            answer = operator.ask(message)
    except Unanswered as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for problem in answer.errors:
        typer.echo(problem, err=True)
    if answer.errors:
        typer.echo(f"nothing was changed; in force: {answer.digest}", err=True)
        raise typer.Exit(1)
    for change in answer.changes:
        typer.echo(change)
    if any(change.endswith(": added") and change.startswith(("models.", "cameras.")) for change in answer.changes):
        typer.echo(
            "new workers and cameras have to be started: gongwei up starts its processes only when it starts itself"
        )
    _tell_versions(answer.changes, described, message.versions)
    typer.echo(f"in force: {answer.digest}" if answer.changes else f"nothing is new; in force: {answer.digest}")


def _tell_versions(changes: list[str], line: Line, wanted: dict[str, str]) -> None:
    """What a changed model file means for those that run."""
    changed = [
        name for name in line.models if any(one.startswith(f"{dotted(('models', name, 'file'))}: ") for one in changes)
    ]
    for name in changed:
        if name in wanted:
            typer.echo(
                f"{name}: the old version goes on until a worker of the new one is open (gongwei rolling-restart)"
            )
        else:
            typer.echo(f"{name}: neither its file nor a sha256 is here: workers of any version go on side by side")
