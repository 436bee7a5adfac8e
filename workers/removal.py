"""`workers remove`: a model out of the folder of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workers import shipped
from workers.arguments import failed
from workers.errors import AbsentError, ModelError, WorkersError
from workers.flags import StoreOption
from workers.lookup import find
from workers.store import check_name, default_store


def remove(
    name: Annotated[str, typer.Argument(help="A model of the folder of models.")],
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a model of the folder of models; those that come with the package stay.

    It asks first. Exit code 1 if there is no such model, or the answer is no.

    Examples:

      workers remove scratches

      workers remove trial --store models --yes
    """
    try:
        path = removable(name, store or default_store())
        if not yes:
            typer.confirm(f"delete {path} ({path.stat().st_size} bytes)?", abort=True)
        path.unlink()
    except OSError as error:
        raise failed(ModelError(f"{name}: cannot be deleted: {error.strerror}")) from None
    except WorkersError as error:
        raise failed(error) from None
    typer.echo(f"deleted {path}")


def removable(name: str, store: Path) -> Path:
    """The file of a model of the store. Raises ModelError where it has none of that name, or it is the package's."""
    path = store / f"{check_name(name)}.onnx"
    if path.is_file() and not shipped.comes_with_us(path):
        return path
    if shipped.path(name) is not None:
        raise ModelError(f"{name}: comes with the package and stays; in {store} there is none of that name")
    try:
        return find(name, store=store, written=str(path))
    except AbsentError as error:
        raise ModelError(f"{name}: {error.brief}; `workers models` lists what is there") from None
