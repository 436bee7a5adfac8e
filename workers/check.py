"""`workers check`: a model on picture files, with the code of the workers, without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from workers import image
from workers.options import ModelOptions
from workers.runner import Runner
from workers.worker import cores


def looked(options: ModelOptions, paths: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each path and the result body of its picture. Raises WorkersError."""
    runner = Runner.load(options, options.engine_threads or cores())
    runner.warm_up()
    for path in paths:
        yield path, runner.look(image.load(path))


def show(path: Path, body: dict[str, Any]) -> None:
    """Print a result body as a table."""
    entries = body.get("detections", body.get("classes", []))
    table = Table(
        "class",
        "score",
        "box",
        "area",
        title=f"{path}: {len(entries)} {_kind(body)}{_warning(body)}",
        title_justify="left",
    )
    for entry in entries:
        box = " ".join(f"{edge:.0f}" for edge in entry.get("box", []))
        table.add_row(entry["name"], f"{entry['score']:.3f}", box, f"{entry['area']:.0f}" if "area" in entry else "")
    Console().print(table)


def _warning(body: dict[str, Any]) -> str:
    return " of random weights" if body.get("random") else ""


def _kind(body: dict[str, Any]) -> str:
    return "best classes" if body["task"] == "classify" else "detections"
