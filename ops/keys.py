"""`gongwei keys`: make the certificates of a line, show the public ones, write the table that lists them."""

from __future__ import annotations

import json as jsons
import os
from pathlib import Path
from typing import Annotated, get_args

import tomli_w
import typer

from broker import keys
from broker.document import meant
from broker.keys import PUBLIC, SECRET, KeysError
from broker.line import Line, Role
from ops.usage import load, usage

app = typer.Typer(help="Make and show the keys of a line (CURVE).", no_args_is_help=True)

ROLES = get_args(Role)
FolderOption = Annotated[Path, typer.Option(metavar="DIR", help="Where the keys of this machine are.")]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The key's name: of the process, or the machine, that uses it.")],
    role: Annotated[str, typer.Option(help=f"What its owner is: {', '.join(ROLES)}.")] = "camera",
    camera: Annotated[
        list[str] | None, typer.Option("--camera", metavar="NAME", help="Names it may use; default: the key's. Repeat.")
    ] = None,
    server: Annotated[bool, typer.Option("--server", help="Short for --role broker.")] = False,
    folder: FolderOption = Path("keys"),
) -> None:
    """Make a key: NAME.key_secret stays on the machine that uses it, NAME.key may go anywhere.

    Prints the lines that list it in a line file. A key that is there is never overwritten. The secret file can be read
    by its owner alone (mode 0600); on Windows it has the access list of the folder, so choose one in your profile.

    Examples:

      gongwei keys new cam1

      gongwei keys new station-7 --camera left --camera right

      gongwei keys new desk --role consumer --folder ~/gongwei-keys
    """
    role = "broker" if server else role
    if role not in ROLES:
        raise usage(f"--role {role}: one of {', '.join(ROLES)}{meant(role, ROLES)}")
    made = _create(folder, name)
    typer.echo(f"wrote {folder / name}{SECRET}{_mode()} and {folder / name}{PUBLIC}", err=True)
    typer.echo(_table({name: _entry(role, made, camera or [name])}).rstrip())


@app.command()
def show(
    name: Annotated[list[str] | None, typer.Argument(help="Names of keys; default: all in the folder.")] = None,
    folder: FolderOption = Path("keys"),
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object, name: public key.")] = False,
) -> None:
    """Show public keys. Secret ones are never shown.

    Examples:

      gongwei keys show

      gongwei keys show broker --json
    """
    names = name or sorted({path.stem for ending in (PUBLIC, SECRET) for path in folder.glob(f"*{ending}")})
    if not names:
        raise usage(f"{folder}: there is no key; gongwei keys new makes one")
    try:
        found = {one: keys.public_key(str(_file(folder, one))) for one in names}
    except KeysError as error:
        raise usage(str(error)) from None
    typer.echo(jsons.dumps(found, indent=2) if json else "\n".join(f"{found[one]}  {one}" for one in names))


@app.command()
def line(
    line: Annotated[Path, typer.Argument(metavar="LINE.toml", help="A line file without a security table.")],
    folder: Annotated[str, typer.Option(metavar="DIR", help="Where, relative to the line file.")] = "keys",
) -> None:
    """Make the keys of a whole line, and print the security table that lists them: one for each process that binds,
    for the workers, for each camera, for a consumer and for an operator.

    Keys that are there are kept. For a line of several machines, move each secret file to the machine that uses it.

    Example:

      gongwei keys line line.toml >> line.toml
    """
    described = load(line)
    if described.security is not None:
        raise usage(f"{line}: has [security] already; add keys to it with gongwei keys new")
    where = line.parent / folder
    cameras = {_key_name(camera): camera for camera in described.cameras}
    listed = {
        name: _entry(role, _ensure(where, name), [cameras.get(name, name)]) for name, role in _needed(described).items()
    }
    table = _table(listed)
    typer.echo(f'\n[security]\nfolder = "{Path(folder).as_posix()}"\n\n{table}'.rstrip())
    typer.echo(f"{where}: {len(listed)} keys; the secret ones stay on the machines that use them", err=True)


def _needed(described: Line) -> dict[str, str]:
    """Name -> role of the keys of a line. That of a camera which is named like a role has `camera-` before its name."""
    others = {role: role for role in ROLES if role != "camera"}
    return {**others, **{_key_name(camera): "camera" for camera in described.cameras}}


def _key_name(camera: str) -> str:
    return f"camera-{camera}" if camera in ROLES else camera


def _ensure(folder: Path, name: str) -> keys.Certificate:
    try:
        secret = folder / f"{name}{SECRET}"
        return keys.read(secret) if secret.exists() else keys.create(folder, name)
    except KeysError as error:
        raise usage(str(error)) from None


def _create(folder: Path, name: str) -> keys.Certificate:
    try:
        return keys.create(folder, name)
    except KeysError as error:
        raise usage(str(error)) from None


def _entry(role: str, made: keys.Certificate, cameras: list[str]) -> dict[str, object]:
    return {"role": role, "public": made.public, **({"cameras": cameras} if role == "camera" else {})}


def _table(listed: dict[str, dict[str, object]]) -> str:
    return tomli_w.dumps({"security": {"keys": listed}})


def _file(folder: Path, name: str) -> Path:
    """The file with the public half; where only the secret one is here, that."""
    public = folder / f"{name}{PUBLIC}"
    return public if public.exists() else folder / f"{name}{SECRET}"


def _mode() -> str:
    return " (mode 0600)" if os.name == "posix" else " (with the access list of its folder)"
