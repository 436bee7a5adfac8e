"""`python -m ops.training`: draw, train, export, and say how good the models are on parts that they never saw."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ops.training.recipe import PICTURE, RECIPES, Settings

app = typer.Typer(add_completion=False)
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


@app.command()
def train(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where models, checkpoint and report go.")],
    seconds: Annotated[float, typer.Option(min=1.0, help="Seconds of training; drawing and tests come on top.")] = 240,
    batch: Annotated[int, typer.Option(min=2, help="Pictures in one step.")] = Settings.batch,
    pictures: Annotated[int, typer.Option(min=64, help="Pictures in memory at once.")] = Settings.pictures,
    painters: Annotated[int, typer.Option(min=1, help="Processes that draw pictures.")] = Settings.painters,
    seed: Annotated[int, typer.Option(help="Of pictures and weights.")] = Settings.seed,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = Settings.rate,
    validation: Annotated[
        int, typer.Option(min=64, help="Parts by which thresholds are chosen.")
    ] = Settings.validation,
    held_out: Annotated[int, typer.Option(min=0, help="Held-out parts of the table at the end.")] = Settings.held_out,
    device: Annotated[str, typer.Option(help="cuda or cpu; empty: the GPU if there is one.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in DIR.")] = False,
) -> None:
    """Train demo-det, demo-seg and demo-cls together, on one device, from pictures drawn meanwhile.

    Examples:

        python -m ops.training --seconds 300 --out trained

        python -m ops.training --seconds 20 --out trained --batch 4 --pictures 64 --painters 1 --device cpu
    """
    settings = Settings(
        seconds=seconds, batch=batch, pictures=pictures, painters=painters, seed=seed, rate=rate,
        validation=validation, held_out=held_out,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    report = run(settings, out, device, resume)
    report["minutes"] = round((time.monotonic() - began) / 60, 2)
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def run(settings: Settings, out: Path, device_name: str, resume: bool) -> dict[str, object]:
    """The whole experiment; returns what there is to know of it."""
    import torch

    from ops.training import export
    from ops.training.loader import Loader
    from ops.training.painter import Order, painters
    from ops.training.stock import Stock
    from ops.training.student import Student
    from ops.training.trainer import Trainer

    device = torch.device(device_name or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    console.print(f"PyTorch {torch.__version__} on {name}; {settings.painters} processes draw")
    students = [Student(recipe, settings, device) for recipe in RECIPES]
    trainer = Trainer(students, settings, device, out / "checkpoint.pt")
    if resume and trainer.resume():
        console.print(f"resumed after {trainer.trained:.0f} s")
    order = Order("train", PICTURE, settings.defect_rate, settings.seed * 1_000_000, "")
    with painters(settings.painters, order) as crew, Loader(crew, device) as loader:
        stock = Stock(settings.pictures, PICTURE, device)
        trainer.run(stock, loader)
        received, steps = stock.received, students[0].steps
        del stock
    console.print(
        f"{steps} steps of {settings.batch} pictures, of {received} that were drawn; {trainer.history[-1][3]}"
    )
    torch.backends.cudnn.benchmark = False  # what follows has batches of several sizes
    # Parts of their own for the thresholds: the training has not seen them.
    order = dataclasses.replace(order, seed=order.seed + 500_000, defect_rate=0.5)
    with painters(settings.painters, order) as crew, Loader(crew, device) as loader:
        stock = Stock(settings.validation, PICTURE, device)
        while len(stock) < settings.validation:
            loader.pour(stock, timeout=0.2)
    report: dict[str, object] = {
        "device": name, "pictures": received, "settings": dataclasses.asdict(settings), "trained": trainer.trained,
        "history": trainer.history,
    }  # fmt: skip
    for student in students:
        highest, bad = export.scores(student.average, student.recipe, stock)
        path = export.export(student.average, student.recipe, highest, bad, out / "models")
        limit = export.threshold(highest, bad)
        missed = float((highest[bad] < limit).float().mean())
        report[student.recipe.name] = {"steps": student.steps, "threshold": limit, "missed_in_training_world": missed}
        console.print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; threshold {limit:.3f}; of the bad parts of the"
                      f" training world it misses {missed:.2%}")  # fmt: skip
    if settings.held_out:
        report["held_out"] = _examine(out / "models", settings.held_out)
    return report


def _examine(folder: Path, parts: int) -> object:
    """The bench, on few parts."""
    import msgspec

    from ops.bench.demo_models import bench, tables

    result = bench(folder, parts)
    for part in tables(result):
        console.print(part)
    return msgspec.to_builtins(result)


if __name__ == "__main__":
    app()
