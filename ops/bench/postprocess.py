"""`gongwei bench postprocess`: what is done around the engine, stage by stage, and suppression beside its rivals."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ops.bench import rivals, stages
from ops.bench.machine import print_busy_warning, this_machine
from ops.bench.report import figure, table, write_report
from ops.bench.rivals import RIVALS, Rivalry
from ops.bench.screen import open_console, open_progress
from ops.bench.stages import Stages
from workers.errors import WorkersError

#: Classes of the scenes in which suppression is measured: COCO's, and one, where every box meets every other.
CLASSES = (80, 1)


def show(models: list[Path], images: list[Path], batches: list[int], rounds: int, report: Path | None) -> bool:
    """Measure, print the tables, write the report; False when a model cannot run or the rivals kept other boxes."""
    output, errors = open_console(), Console(stderr=True)
    machine = this_machine()
    print_busy_warning(errors, machine)
    try:
        measured = _measure(models, images, batches, rounds, errors)
    except (WorkersError, OSError) as error:
        errors.print(f"[red]failed:[/] {error}", highlight=False, soft_wrap=True)
        return False
    found = [rivals.compete(classes, rounds) for classes in CLASSES]
    shown = [stage_table(measured), rival_table(found)]
    output.print(f"{machine}\none thread in every stage\n", highlight=False)
    for part in shown:
        output.print(part)
    for text in misses(measured, found):
        output.print(f"[yellow]target missed:[/] {text}", highlight=False)
    if report:
        write_report(report, {"machine": machine, "stages": measured, "suppression": found}, shown)
    return all(one.same for one in found)


def _measure(models: list[Path], images: list[Path], batches: list[int], rounds: int, errors: Console) -> list[Stages]:
    files = stages.pictures(images, max(batches))
    with tempfile.TemporaryDirectory(prefix="gw") as folder, open_progress(errors) as progress:
        task = progress.add_task("", total=None)
        chosen = models or list(stages.made(Path(folder)))
        progress.update(task, total=len(chosen) * len(batches))
        measured = []
        for path in chosen:
            for batch in batches:
                progress.update(task, description=f"{path.stem} {batch}")
                measured.append(stages.measure(path, batch, files, max(1, rounds // batch)))
                progress.advance(task)
    return measured


def misses(measured: list[Stages], found: list[Rivalry]) -> list[str]:
    """The targets that were missed, in words."""
    texts = []
    for one in measured:
        share = (one.prepare + one.interpret) / one.infer
        if one.task == "detect" and share > stages.TARGET:
            texts.append(
                f"{one.model} at batch {one.batch}: {share:.2f} of the inference around it, not {stages.TARGET}"
            )
    for rivalry in found:
        for rival in list(RIVALS)[1:]:
            if rivalry.times(rival) < rivals.TARGET:
                times = f"{rivalry.times(rival):.1f}, not {rivals.TARGET:g} times"
                texts.append(f"{rival} takes {times} as long as the workers, with {rivalry.classes} classes")
    return texts


def stage_table(measured: list[Stages]) -> Table:
    """A row for each model and batch."""
    columns = ("batch", "found", "decode", "prepare", "infer", "interpret", "prepare + interpret / infer")
    made = table("Milliseconds per frame", "model", *columns)
    for one in measured:
        times = (one.decode, one.prepare, one.infer, one.interpret)
        share = (one.prepare + one.interpret) / one.infer
        made.add_row(
            one.model, str(one.batch), figure(one.found, 1), *(figure(time, 2) for time in times), figure(share, 3)
        )
    return made


def rival_table(found: list[Rivalry]) -> Table:
    """A row for each rival, and how many boxes were kept."""
    title = f"Suppression of {rivals.CANDIDATES:,} boxes, milliseconds (median)"
    made = table(title, "by", *(f"{one.classes} classes{suffix}" for one in found for suffix in ("", ", times ours")))
    for name in RIVALS:
        cells = []
        for one in found:
            middle = sorted(one.milliseconds[name])[len(one.milliseconds[name]) // 2]
            cells += [figure(middle, 2), figure(one.times(name), 1)]
        made.add_row(name, *cells)
    kept = [cell for one in found for cell in (str(one.kept), "the same" if one.same else "NOT THE SAME")]
    made.add_row("kept", *kept)
    return made
