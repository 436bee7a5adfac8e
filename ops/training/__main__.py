"""`python -m ops.training`: draw, train, export, and say how good the models are on parts that they never saw."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from ops.training.recipe import PICTURE, RECIPES, Settings

if TYPE_CHECKING:
    import torch

    from ops.training.painter import Order
    from ops.training.student import Student

#: Of the held-out parts by which a recipe may be judged while it is being made.
_TRIAL_SEED = 777

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

    from ops.training.student import Student

    device = torch.device(device_name or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    console.print(f"PyTorch {torch.__version__} on {name}; {settings.painters} processes draw")
    students = [Student(recipe, settings, device) for recipe in RECIPES]
    report: dict[str, object] = {"device": name, "settings": dataclasses.asdict(settings)}
    report["training"] = _train(students, settings, device, out / "checkpoint.pt", resume)
    report["models"] = _export(students, settings, device, out / "models")
    if settings.held_out:
        report["held_out"] = _examine(out / "models", settings.held_out)
    return report


def _train(
    students: list[Student], settings: Settings, device: torch.device, checkpoint: Path, resume: bool
) -> dict[str, object]:
    """Draw and train until the time is over; what went on meanwhile."""
    import torch

    from ops.training.loader import Loader
    from ops.training.painter import painters
    from ops.training.stock import Stock
    from ops.training.trainer import Trainer

    trainer = Trainer(students, settings, device, checkpoint)
    if resume and trainer.resume():
        console.print(f"resumed after {trainer.trained:.0f} s")
    torch.backends.cudnn.benchmark = True
    with painters(settings.painters, _order(settings)) as crew, Loader(crew, device) as loader:
        stock = Stock(settings.pictures, PICTURE, device)
        trainer.run(stock, loader)
    torch.backends.cudnn.benchmark = False  # what follows has batches of several sizes
    seconds, steps, drawn, losses = trainer.history[-1]
    console.print(
        f"{steps} steps of {settings.batch} pictures, of {drawn} that were drawn, in {seconds:.0f} s; {losses}"
    )
    return {"seconds": seconds, "steps": steps, "drawn": drawn, "history": trainer.history}


def _export(students: list[Student], settings: Settings, device: torch.device, folder: Path) -> dict[str, object]:
    """Choose thresholds on parts that the training has not seen, and write the models."""
    import torch

    from ops.training import export
    from ops.training.loader import Loader
    from ops.training.painter import painters
    from ops.training.stock import Stock

    order = msgspec.structs.replace(_order(settings), seed=_order(settings).seed + 500_000, defect_rate=0.5)
    stock = Stock(settings.validation, PICTURE, device)
    with painters(settings.painters, order) as crew, Loader(crew, device) as loader:
        while stock.received < settings.validation:
            loader.pour(stock, timeout=0.2)
    judged = [export.scores(student.average, student.recipe, stock) for student in students]
    bad = judged[0][1]
    alarms = [student.recipe.alarms for student in students]
    limits = export.thresholds([highest for highest, _ in judged], bad, alarms)
    called = torch.stack([highest >= limit for (highest, _), limit in zip(judged, limits, strict=True)])
    told: dict[str, object] = {"parts": len(bad), "together": _shares(called.any(0), bad)}
    for student, limit, mine in zip(students, limits, called, strict=True):
        path = export.export(student.average, student.recipe, limit, folder)
        told[student.recipe.name] = {"threshold": limit} | _shares(mine, bad)
        console.print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; threshold {limit:.3f}")
    for name, shares in told.items():
        console.print(f"training world, {name}: {shares}")
    return told


def _shares(called: torch.Tensor, bad: torch.Tensor) -> dict[str, float]:
    """Shares of bad parts that are not called bad, and of sound ones that are."""
    return {"missed": float((~called[bad]).float().mean()), "false_alarms": float(called[~bad].float().mean())}


def _order(settings: Settings) -> Order:
    """What the painters draw for training."""
    from ops.training.painter import Order

    return Order(world="train", size=PICTURE, defect_rate=settings.defect_rate, seed=settings.seed * 1_000_000)


def _examine(folder: Path, parts: int) -> object:
    """The bench, on few parts and on others than its own, which no decision here may have seen."""
    from ops.bench.demo_models import bench, tables

    result = bench(folder, parts, seed=_TRIAL_SEED)
    for part in tables(result):
        console.print(part)
    return msgspec.to_builtins(result)


if __name__ == "__main__":
    app()
