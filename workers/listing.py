"""`workers models`: what is in the folder of models, and what each file says about itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workers import shipped
from workers.errors import ModelError
from workers.flags import JsonOption, StoreOption
from workers.metadata import RANDOM, SOURCE, SOURCE_SHA256, WEIGHTS
from workers.model import Hints, describe
from workers.store import default_store, names_in


def models(
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the folder of models, and the models that come with the package: what `workers start --model NAME` finds.

    Examples:

      workers models

      workers models --store models --json
    """
    folder = store or default_store()
    rows = list(listed(folder))
    kept = {row["name"] for row in rows}
    rows += [row for row in listed(shipped.FOLDER) if row["name"] not in kept]
    if not kept:
        typer.echo(_nothing_in(folder, "" if store is None else f" --store {store}"), err=True)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    console = Console()
    # Into a pipe or a file nothing is cut; a terminal has as much of where a model is from as fits.
    (console if console.is_terminal else Console(width=200)).print(table(rows))
    for row in rows:
        note = row.get("error") or row["max_batch_reason"]
        if note:
            typer.echo(f"{row['name']}: {note}")


def _nothing_in(folder: Path, more: str) -> str:
    """That the folder has no model, and how it gets one; `more`: what the command must say besides."""
    found = "no model in it" if folder.is_dir() else "there is no such folder"
    return (
        f"{folder}: {found}; what follows comes with the package. To fill it:\n"
        f"  workers import FILE.onnx{more}\n"
        f"  workers zoo ARCHITECTURE --weights random{more}  # for trials"
    )


def listed(store: Path) -> Iterator[dict[str, Any]]:
    """A row for every model, by name; one that cannot be told has `error` instead."""
    for name in names_in(store):
        path = store / f"{name}.onnx"
        try:
            yield {"name": name, "file": str(path), "bytes": path.stat().st_size} | _facts(path)
        except (ModelError, OSError) as error:
            yield {"name": name, "file": str(path), "error": str(error)}


def table(rows: list[dict[str, Any]]) -> Table:
    """The list for people."""
    shown = Table(box=None, pad_edge=False, collapse_padding=True)
    shown.add_column("name", no_wrap=True)
    shown.add_column("task", no_wrap=True)
    for title in ("input", "classes", "batch"):
        shown.add_column(title, justify="right", no_wrap=True)
    for title in ("precision", "weights"):
        shown.add_column(title, no_wrap=True)
    for title in ("from", "licence"):
        shown.add_column(title)
    shown.add_column("MB", justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*map(Text, _cells(row)))  # files say what they like: `[/x]` is no markup
    return shown


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["name"], "?", *[""] * 8]
    size, batch = "x".join(map(str, row["size"])), row["max_batch"]
    return [
        row["name"],
        row["task"],
        size,
        str(row["classes"]),
        "any" if batch is None else str(batch),
        row["precision"],
        row["weights"],
        row["source"],
        row["licence"][:24],
        f"{row['bytes'] / 1e6:.1f}",
    ]


def _facts(path: Path) -> dict[str, Any]:
    from workers import onnxfile  # here: it loads onnx, which no other command waits for

    proto = onnxfile.load(path, weights=False)
    signature = onnxfile.signature(proto)
    model, said = describe(signature, Hints(), path.name), signature.metadata
    limits = [limit for limit in (model.batch, model.settings.max_batch) if limit is not None]
    return {
        "task": model.task,
        "size": list(model.size),
        "classes": len(model.names),
        "max_batch": min(limits, default=None),
        "max_batch_reason": model.settings.reason or _unfreed(model.batch),
        "precision": onnxfile.precision(proto),
        "weights": RANDOM if said.get(WEIGHTS) == RANDOM else "file's",
        "source": said.get(SOURCE, ""),
        "source_sha256": said.get(SOURCE_SHA256, ""),
        "licence": said.get("license", ""),
    }


def _unfreed(batch: int | None) -> str:
    return (
        "" if batch is None else f"the file has a fixed batch of {batch}; workers import FILE.onnx --replace frees it"
    )
