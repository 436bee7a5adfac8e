"""The operator's commands about workers that run: who is registered at the broker, and let some finish and end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker import line as line_file
from broker.keyring import BrokerKey, KeyOption, Keyring
from broker.keys import KeysError
from broker.line import Endpoints, LineError
from broker.operator import Operator, Unanswered
from broker.wire import List, Listed, SessionState, Stop, Stopped
from workers.arguments import fail
from workers.flags import JsonOption, LineOption

#: Seconds between two looks at what is still in flight.
LOOK: Final = 0.1
#: Hex digits of a version that are shown.
SHORT: Final = 12

ControlOption = Annotated[str, typer.Option(help="The broker's control endpoint; default: the line file's.")]
ModelOption = Annotated[list[str] | None, typer.Option("--model", help="Sessions of this model; repeat.")]


def listing(
    model: ModelOption = None,
    line: LineOption = None,
    control: ControlOption = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the broker.")] = 5.0,
    key: KeyOption = None,
    broker_key: BrokerKey = "",
    as_json: JsonOption = False,
) -> None:
    """Show the sessions that are registered at the broker: worker, model, version, jobs in flight.

    Exit code 1 when no broker answers.

    Examples:

      workers list --line line.toml

      workers list --control tcp://10.0.0.5:7008 --json
    """
    try:
        with _operator(control, line, key, broker_key, timeout) as operator:
            listed: Listed = operator.ask(List(models=model or []))
    except Unanswered as error:
        raise fail(str(error)) from None
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(listed)))
    else:
        console = Console()
        console.print(table(listed) if listed.sessions else "no session is registered")


def stop(
    name: Annotated[list[str] | None, typer.Option("--name", help="A worker, by its name; repeat.")] = None,
    model: ModelOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All workers.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until what is in flight must be done.", min=0.1)] = 30.0,
    line: LineOption = None,
    control: ControlOption = "",
    key: KeyOption = None,
    broker_key: BrokerKey = "",
    as_json: JsonOption = False,
) -> None:
    """Let workers finish what they have in flight, and end: they get no more jobs, nothing is lost or run twice.

    A worker that `gongwei up` (or another supervisor) runs is started again by it. Exit code 1 when something is still
    in flight after --timeout, 2 for a worker or model that is not registered; then nothing is stopped.

    Examples:

      workers stop --name yolov5n-1 --line line.toml

      workers stop --model yolov5n --timeout 60

      workers stop --all --json
    """
    if not (name or model or everything):
        raise fail("say which: --name WORKER, --model MODEL or --all", 2)
    began = time.monotonic()
    try:
        with _operator(control, line, key, broker_key) as operator:
            answer: Stopped = operator.ask(Stop(workers=name or [], models=model or [], everything=everything))
            if answer.unknown:
                raise fail(_unknown(answer.unknown, operator.ask(List()).sessions), 2)
            waiting = wait_drained(operator, answer.sessions, timeout, Console(stderr=True))
    except Unanswered as error:
        raise fail(str(error)) from None
    _tell(answer.sessions, waiting, time.monotonic() - began, as_json)
    raise typer.Exit(1 if waiting else 0)


def wait_drained(
    operator: Operator, sessions: Iterable[SessionState], timeout: float, console: Console
) -> list[SessionState]:
    """Wait until the broker has let all of `sessions` go, `timeout` seconds at most; those that it has not.

    Shows on `console` how many jobs are in flight. Raises Unanswered.
    """
    ids = {session.session for session in sessions}
    deadline = time.monotonic() + timeout
    shown = ""
    with console.status("") as status:
        while True:
            listed: Listed = operator.ask(List())
            left = [session for session in listed.sessions if session.session in ids]
            if not left or time.monotonic() >= deadline:
                return left
            text = in_flight(left)
            status.update(Text(text))
            if text != shown and not console.is_terminal:
                console.print(Text(text), highlight=False)
            shown = text
            time.sleep(LOOK)


def in_flight(sessions: list[SessionState]) -> str:
    """What is not done yet, in words."""
    jobs = sum(session.in_flight for session in sessions)
    names = ", ".join(dict.fromkeys(session.worker for session in sessions))
    return f"{jobs} job{'s' * (jobs != 1)} in flight at {names}"


def table(listed: Listed) -> Table:
    """Sessions as a table; a version that is not the wanted one is marked, and one with random weights."""
    shown = Table(box=None, pad_edge=False)
    for title in ("worker", "model", "version", "precision", "session", "state"):
        shown.add_column(title)
    for title in ("in flight", "done", "grant"):
        shown.add_column(title, justify="right")
    for one in listed.sessions:
        wanted = listed.wanted.get(one.model, "")
        version = one.sha256[:SHORT] + (" (old)" if wanted and one.sha256 != wanted else "")
        version += " random" if one.random else ""
        state = "draining" if one.draining else "open" if one.open else "opening"
        done = one.dispatched - one.in_flight
        numbers = map(str, (one.in_flight, done, one.grant))
        cells = (one.worker, one.model, version, one.precision, one.session, state, *numbers)
        shown.add_row(*map(Text, cells))  # workers call themselves what they like: `[/x]` is no markup
    return shown


def _unknown(names: list[str], sessions: list[SessionState]) -> str:
    workers = ", ".join(sorted({session.worker for session in sessions})) or "none"
    models = ", ".join(sorted({session.model for session in sessions})) or "none"
    missing = ", ".join(names)
    return f"not registered: {missing}; nothing was stopped\nworkers are: {workers}\nmodels are: {models}"


def _tell(sessions: list[SessionState], waiting: list[SessionState], seconds: float, as_json: bool) -> None:
    left = {session.session for session in waiting}
    drained = [session for session in sessions if session.session not in left]
    if as_json:
        told: dict[str, Any] = {"drained": drained, "waiting": waiting, "seconds": round(seconds, 3)}
        typer.echo(json.dumps(msgspec.to_builtins(told)))
        return
    names = ", ".join(dict.fromkeys(session.worker for session in drained)) or "no worker"
    typer.echo(f"drained in {seconds:.2f} s: {names}")
    if waiting:
        typer.echo(f"not drained: {in_flight(waiting)}; they go on until it is done", err=True)


def _operator(control: str, line: Path | None, key: Path | None, broker_key: str, timeout: float = 5.0) -> Operator:
    try:
        described = line_file.load(line) if line is not None else None
        credentials = Keyring(described, line, key).credentials("operator", "broker", broker_key)
    except (LineError, KeysError) as error:
        raise fail(str(error), 2) from None
    endpoints = described.endpoints if described is not None else Endpoints()
    return Operator(control or endpoints.control, timeout, credentials)
