"""The `broker report` command: what a ledger holds, what was deleted from it, and whether it all adds up."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.ledger_file import LedgerError
from broker.report import report

#: What was deleted and is shown: rows that somebody may miss.
_ROWS = ("frames", "published", "results", "late_results", "skips", "parts", "boots")

LedgerArgument = Annotated[Path, typer.Argument(metavar="LEDGER", help="The ledger's SQLite file.")]


def command(
    ledger: LedgerArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print all counts as JSON.")] = False,
) -> None:
    """Show what a ledger holds: frames by camera, size, the oldest that is kept, and what was deleted.

    Reads beside a running join. Totals are of all that ever was accepted; what was deleted counts.
    Exit code 1 if a frame was published twice, or joined and not published, or if the ledger cannot be read.

    Examples:

      broker report gongwei-data/ledger.sqlite

      broker report gongwei-data/ledger.sqlite --json
    """
    try:
        told = report(ledger)
    except LedgerError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        console = Console(highlight=False)
        console.print(cameras(told))
        for line in lines(told):
            console.print(line, markup=False, soft_wrap=True)
    raise typer.Exit(0 if sound(told) else 1)


def sound(told: Mapping[str, Any]) -> bool:
    """Whether every joined frame was published, and only once."""
    return not told["duplicates"] and not told["unpublished"]


def cameras(told: Mapping[str, Any]) -> Table:
    """Frames by camera, and in all."""
    names = ("accepted", "joined", "complete", "incomplete", "open")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("camera")
    for name in names:
        table.add_column(name, justify="right")
    for camera, counts in told["cameras"].items():
        table.add_row(Text(camera), *(f"{counts[name]:,}" for name in names))
    table.add_row("in all", *(f"{told[name]:,}" for name in names), style="bold")
    return table


def lines(told: Mapping[str, Any]) -> list[str]:
    """The rest, in words."""
    oldest = "nothing" if told["oldest_at"] is None else f"back to {_moment(told['oldest_at'])}"
    rows = {what.replace("_", " "): count for what, count in told["deleted"].items() if what in _ROWS}
    deleted = ", ".join(f"{count:,} {what}" for what, count in rows.items())
    found = [
        f"kept: {told['frames']:,} frames, {oldest}; {told['bytes'] / 2**20:,.1f} MB",
        f"stream: seq {told['oldest_seq']:,} to {told['newest_seq']:,} of ledger {told['ledger_id']}",
        f"deleted: {deleted or 'nothing'}",
        f"late results: {told['late_results']:,}; tries beyond the first: {told['requeued']:,}",
    ]
    if not sound(told):
        found.append(f"WRONG: {told['duplicates']:,} published twice, {told['unpublished']:,} joined and not published")
    return found


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
