"""What a benchmark shows on the terminal while it runs and at its end. Progress goes to stderr, figures to stdout."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ops.bench.broker import Plan, paced_rate, profile_broker, run_plan
from ops.bench.compare import format_size, make_rows, make_targets
from ops.bench.crew import BenchError
from ops.bench.machine import print_busy_warning, this_machine
from ops.bench.overload import Load, Overload, run_overload
from ops.bench.plot import draw
from ops.bench.report import (
    describe,
    describe_workload,
    overload_table,
    soak_table,
    tables,
    worker_table,
    write_report,
)
from ops.bench.soak import Soak, run_soak
from ops.bench.trial import Measurement, Settings, Trial
from ops.bench.worker import TARGET, CaseResult, Workload, make_cases, run_case


def open_console() -> Console:
    """Standard output; wide enough for the tables where it is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=180)


def open_progress(console: Console) -> Progress:
    """A progress bar of trials."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def show_broker_bench(plan: Plan, settings: Settings, report: Path | None) -> bool:
    """Run the plan, print its tables, write the report; False when a trial failed."""
    output, errors = open_console(), Console(stderr=True)
    machine = this_machine()
    print_busy_warning(errors, machine)
    with open_progress(errors) as progress:
        task = progress.add_task("", total=len(list(plan.trials())))

        def advance(trial: Trial, outcome: Measurement | BenchError) -> None:
            progress.update(task, advance=1, description=_name(trial))
            if isinstance(outcome, BenchError):
                progress.console.print(f"[red]{_name(trial)} failed:[/] {outcome}", highlight=False, soft_wrap=True)
            elif outcome.troubles:
                progress.console.print(f"[yellow]{_name(trial)}:[/] {outcome.troubles}", highlight=False)

        results, failures = run_plan(plan, settings, advance)
    rows = make_rows(results)
    targets = make_targets(rows)
    shown = tables(rows, targets)
    output.print(f"{machine}\n{describe(settings, plan.sizes)}\n", highlight=False)
    for part in shown:
        output.print(part)
    if report:
        measurements = [measurement for found in results.values() for measurement in found if measurement]
        content = {"machine": machine, "plan": plan, "settings": settings, "rows": rows, "targets": targets}
        write_report(report, content | {"measurements": measurements, "failures": failures}, shown)
    return not failures


def show_worker_bench(workload: Workload, pairs: int, report: Path | None) -> bool:
    """Run all cases, print their table, write the report; False when a case failed."""
    output, errors = open_console(), Console(stderr=True)
    machine = this_machine()
    print_busy_warning(errors, machine)
    results: list[CaseResult] = []
    failed = False
    try:
        with open_progress(errors) as progress:
            cases = make_cases(workload)
            task = progress.add_task("", total=2 * pairs * len(cases))
            for case in cases:
                progress.update(task, description=case.name)
                results.append(run_case(workload, case, pairs, lambda: progress.advance(task)))
    except BenchError as error:
        failed = True
        errors.print(f"[red]failed:[/] {error}", highlight=False, soft_wrap=True)
    shown = [worker_table(results)]
    output.print(f"{machine}\n{describe_workload(workload)}\n", highlight=False)
    output.print(shown[0])
    if report:
        write_report(report, {"machine": machine, "workload": workload, "cases": results, "target": TARGET}, shown)
    return not failed


def show_soak(soak: Soak, report: Path | None, picture: Path | None) -> bool:
    """Run the soak, print its table, write report and picture; False when something does not reconcile."""
    output, errors = open_console(), Console(stderr=True)
    machine = this_machine()
    with open_progress(errors) as progress:
        task = progress.add_task("soak", total=round(soak.seconds / soak.every))
        try:
            record, problems = run_soak(soak, lambda record: progress.update(task, completed=len(record.times)))
        except BenchError as error:
            errors.print(f"[red]failed:[/] {error}", highlight=False, soft_wrap=True)
            return False
    shown = [soak_table(record)]
    output.print(f"{machine}\n", highlight=False)
    output.print(shown[0])
    output.print("[red]does not reconcile:[/] " + "; ".join(problems) if problems else "reconciles", highlight=False)
    if report:
        write_report(report, {"machine": machine, "record": record, "problems": problems}, shown)
    if picture:
        draw(record, picture)
    return not problems


def show_overload(cases: list[Overload], report: Path | None) -> bool:
    """Run all cases, print their table and what was missed, write the report; False when one does not reconcile."""
    output, errors = open_console(), Console(stderr=True)
    machine = this_machine()
    print_busy_warning(errors, machine)
    loads: list[Load] = []
    failures: list[str] = []
    with open_progress(errors) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=f"{case.policy} {case.cameras} {case.kind}")
            try:
                loads.append(run_overload(case))
            except BenchError as error:
                failures.append(f"{case.policy}, {case.cameras} cameras, {case.kind}: {error}")
            progress.advance(task)
    shown = [overload_table(loads)]
    output.print(f"{machine}\n", highlight=False)
    output.print(shown[0])
    for load in loads:
        what = f"{load.overload.policy}, {load.overload.cameras} cameras, {load.overload.kind}"
        for text in load.misses():
            output.print(f"[yellow]target missed:[/] {what}: {text}", highlight=False)
        failures += [f"{what}: {text}" for text in load.problems]
    output.print(
        "[red]failed:[/] " + "; ".join(failures) if failures else "reconciles", highlight=False, soft_wrap=True
    )
    if report:
        write_report(report, {"machine": machine, "loads": loads, "failures": failures}, shown)
    return not failures


def show_profile(plan: Plan, settings: Settings, file: Path) -> bool:
    """Profile the broker on the first configuration of the plan; False when that failed."""
    trial = Trial(subject="broker", transport=plan.transports[0], size=plan.sizes[0], models=plan.models[0])
    try:
        measurement = profile_broker(trial, settings, file)
    except BenchError as error:
        Console(stderr=True).print(f"[red]{_name(trial)} failed:[/] {error}", highlight=False, soft_wrap=True)
        return False
    open_console().print(f"{_name(trial)} under cProfile: {measurement.tasks_per_s:,.0f} tasks/s; all of it: {file}")
    return True


def _name(trial: Trial) -> str:
    pace = f" at {paced_rate(trial.size):g}/s" if trial.rate else ""
    subject = "proxy, HWM 4," if trial.subject == "tight" else trial.subject
    return f"{subject} {trial.transport} {format_size(trial.size)} ×{trial.models}{pace}"
