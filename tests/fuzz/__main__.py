"""Feed a parser with what no peer should send, for long, and save whatever it does not take well."""

from __future__ import annotations

import atexit
import importlib
from pathlib import Path
from typing import Annotated, Literal

import typer

import workers  # noqa: F401  before any cv2: it sets the limit of pixels that cv2 decodes
from tests.fuzz import TARGETS
from tests.fuzz.engine import Finding, Watched, guided, last_input, plain

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def fuzz(
    target: Annotated[str, typer.Argument(help=f"One of: {', '.join(TARGETS)}.")],
    runs: Annotated[int, typer.Option(min=0, help="Inputs; 0: no such end.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds; 0: no such end.")] = 0.0,
    engine: Annotated[
        Literal["plain", "atheris"], typer.Option(help="Our own mutations, or guided by coverage (Linux).")
    ] = "plain",
    seed: Annotated[int, typer.Option(min=0, help="Of the random numbers: the same seed, the same inputs.")] = 0,
    findings: Annotated[Path, typer.Option(metavar="FOLDER", help="Where a finding's input goes.")] = Path("findings"),
    replay: Annotated[Path | None, typer.Option(metavar="FILE", help="Run this one input only.")] = None,
) -> None:
    """Exit code 0: nothing found; 1: a finding; 2: wrong usage.

    Examples:

      python -m tests.fuzz wire --runs 10000000

      python -m tests.fuzz line --seconds 60 --engine atheris

      python -m tests.fuzz line --replay findings/line-0123456789ab.bin
    """
    if target not in TARGETS:
        raise typer.BadParameter(f"{target!r}; known: {', '.join(TARGETS)}", param_hint="TARGET")
    module = importlib.import_module(f"tests.fuzz.{target}")
    if replay is not None:
        module.target(last_input(replay) if replay.suffix == ".underway" else replay.read_bytes())
        typer.echo("taken well")
        return
    if not runs and not seconds:
        raise typer.BadParameter("say how long: --runs or --seconds")
    with Watched(target, module.target, findings, typer.echo) as watched:
        try:
            if engine == "atheris":
                atexit.register(lambda: typer.echo(watched.words()))
                guided(watched, module.seeds(), runs, seconds, seed, findings, ["broker.", "workers.", "clients."])
            else:
                plain(watched, module.seeds(), runs, seconds, seed)
        except ImportError:
            raise typer.BadParameter("atheris is not installed: pip install -e '.[fuzz]'") from None
        except Finding as finding:
            typer.echo(f"{watched.words()}\nFINDING {finding}", err=True)
            raise typer.Exit(1) from finding.__cause__
    typer.echo(watched.words())


if __name__ == "__main__":
    app()
