"""`gongwei units`: the systemd units of a line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from ops.usage import load, usage


def units(
    line: Annotated[Path, typer.Argument(metavar="LINE.toml", help="The line file.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the files there; default: show them.")] = None,
    user: Annotated[str, typer.Option(help="Who runs the processes; default: root.")] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines connect although nobody is asked for a key.")
    ] = False,
) -> None:
    """Write systemd units that run a line on this machine: a service for each process, a target for all.

    They are named after the line (`name` in its file), or else after the file. Units that were made from another line
    file are not written over.

    The same processes as those of gongwei up, each with a limit of memory that follows from the line file: a broker
    that a stranger floods is ended and started again before the machine runs out (docs/limits.md). So is a process
    whose loop stands still (docs/operations.md). Exit code 2 for a line file that cannot be used; a model or a source
    that is not there yet is a warning.

    Examples:

      gongwei units line.toml

      sudo gongwei units line.toml --user gongwei --out /etc/systemd/system

      sudo systemctl daemon-reload && sudo systemctl enable --now gongwei-line-1.target
    """
    from ops import inputs, plan, systemd

    described, path = load(line), line.resolve()
    if problems := inputs.unsafe(described, path, insecure=insecure):
        raise usage("\n".join(problems))
    if not systemd.name_of(described, path):
        raise usage(f'{path}: no name of units can be made of the file\'s; write name = "NAME" at its top')
    for problem in inputs.missing(described, path):
        typer.echo(f"warning: {problem}", err=True)
    files = systemd.units(described, path, plan.specs(described, path, insecure=insecure), user=user)
    if out is not None and (taken := _taken(out, files, path)):
        raise usage(taken)
    for name, text in files.items():
        if out is None:
            typer.echo(f"# {name}\n{text}")
        else:
            _write(out / name, text)
    if out is not None:
        typer.echo(f"wrote {len(files)} units to {out}; {next(iter(files))} starts and stops them all", err=True)


def _taken(out: Path, files: Iterable[str], path: Path) -> str:
    """Why the units may not be written: another line has their names. "": they may."""
    from ops import systemd

    for file in map(out.joinpath, files):
        try:
            other = systemd.foreign(file.read_text(encoding="utf-8", errors="replace"), path)
        except OSError:  # none is there; what else is wrong, writing will say
            continue
        if other:
            return f'{file}: is of {other}; nothing was written. Write another name = "NAME" at the top of {path}'
    return ""


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise usage(f"cannot write {file}: {error.strerror or error}") from None
