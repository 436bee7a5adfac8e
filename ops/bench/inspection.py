"""What `gongwei bench demo-models` shows while it runs and at its end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ops.bench.demo_models import bench, tables
from ops.bench.machine import print_busy_warning, this_machine
from ops.bench.quantised import CALIBRATION_PICTURES, FALLS
from ops.bench.report import write_report
from ops.bench.screen import open_console, open_progress
from workers import shipped
from workers.errors import ModelError


def show_demo_models(folder: Path, parts: int, processes: int, precisions: bool, report: Path | None) -> bool:
    """Run the bench, print its tables, write the report; False where models are missing or not fp32."""
    output, errors = open_console(), Console(stderr=True)
    if absent := [name for name in shipped.NAMES if not (folder / f"{name}.onnx").is_file()]:
        errors.print(f"{folder}: no file of {', '.join(absent)}; python -m ops.training makes them", soft_wrap=True)
        return False
    machine = this_machine()
    print_busy_warning(errors, machine)
    with open_progress(errors) as progress:
        task = progress.add_task("parts", total=parts * (1 + len(FALLS) * precisions))

        def advance(done: int) -> None:
            progress.update(task, completed=done)

        try:
            result = bench(folder, parts, advance, processes=processes, calibration=CALIBRATION_PICTURES * precisions)
        except ModelError as error:
            errors.print(str(error), soft_wrap=True, highlight=False)
            return False
    shown = tables(result)
    output.print(f"{machine}\n", highlight=False)
    for part in shown:
        output.print(part)
    if report:
        write_report(report, {"machine": machine, "result": result}, shown)
    return True
