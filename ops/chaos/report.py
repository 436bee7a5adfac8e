"""The report of a chaos run: figures for a script as JSON, and a short page for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from ops.chaos.reconcile import Verdict
from ops.chaos.recovery import Spread, Struck, Times


class Report(Struct, frozen=True, kw_only=True):
    """A whole run. `settings`: as given; `faults`: kind -> how often it struck, `serving`: of these, how often it met a
    process that was up and serving; `given_up`: those that nobody took in time. `exits`: ends that a fault explains, by
    fault; `crashes`: those that none does. `skipped`: kinds that this machine cannot do, and why. `unfinished`: what
    the line had not done when the run gave up waiting. `struck`: each fault as it was carried out, by the monotonic
    clock. Seconds throughout."""

    settings: dict[str, Any]
    seconds: float
    faults: Mapping[str, int]
    serving: Mapping[str, int]
    given_up: Mapping[str, int]
    exits: Mapping[str, int]
    crashes: list[str]
    skipped: dict[str, str]
    unfinished: list[str]
    verdict: Verdict
    times: Times
    struck: list[Struck]

    @property
    def passed(self) -> bool:
        """Nothing lost, nothing twice, every status true, and no process ended for a reason of its own."""
        return self.verdict.passed and not self.crashes and not self.unfinished

    def to_json(self) -> bytes:
        """For a script; `passed` stands in it."""
        return msgspec.json.format(msgspec.json.encode({"passed": self.passed, **msgspec.structs.asdict(self)}))

    def write(self, path: Path) -> None:
        """Raises OSError."""
        path.write_bytes(self.to_json() + b"\n")


def show(report: Report, console: Console) -> None:
    """For a person."""
    verdict = report.verdict
    console.print(_faults(report), _recovery(report.times))
    console.print(
        f"frames: {verdict.sent} sent, {verdict.promised} promised, {verdict.rows} in the ledger,"
        f" {verdict.purged} of them deleted since,"
        f" {verdict.incomplete} incomplete, {verdict.retried} answers at a second try or later"
    )
    console.print(
        f"lost {verdict.lost}, twice {verdict.duplicates}, wrong {verdict.wrong}, rejected {verdict.rejected};"
        f" poison {verdict.poison_sent} sent, {verdict.poison_flagged} flagged, {verdict.poison_unjudged} unjudged;"
        f" boots cut {verdict.boots_cut}"
    )
    for model, counts in verdict.statuses.items():
        console.print(f"{model}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    for kind, reason in report.skipped.items():
        console.print(f"[yellow]skipped[/] {kind}: {reason}")
    for text in (*report.unfinished, *report.crashes, *verdict.findings):
        console.print(text, style="red", markup=False)
    style, word = ("green", "passed") if report.passed else ("red", "FAILED")
    console.print(f"[{style}]{word}[/], seed {report.settings['seed']}, {report.seconds:.0f} s")


def _faults(report: Report) -> Table:
    table = Table("fault", "struck", "while serving", "given up", title="what was done")
    for kind in sorted({*report.faults, *report.given_up}):
        counts = (of.get(kind, 0) for of in (report.faults, report.serving, report.given_up))
        table.add_row(kind, *map(str, counts))
    for cause, count in report.exits.items():
        table.add_row(f"[dim]ended by {cause}[/]", str(count), "", "")
    return table


def _recovery(times: Times) -> Table:
    table = Table("seconds", "n", "p50", "p99", "max", title="settled and recovered")
    rows: dict[str, Spread] = {
        "capture to settled": times.settled,
        "  away from outages": times.clear,
        "  poison": times.poison,
        **{f"recovery {kind}": spread for kind, spread in times.recovery.items()},
        **{f"around {kind}": spread for kind, spread in times.around.items()},
        **{f"done again, {kind}": spread for kind, spread in times.again.items()},
    }
    for name, spread in rows.items():
        table.add_row(name, str(spread.count), *(_number(value) for value in (spread.p50, spread.p99, spread.max)))
    return table


def _number(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f}"
