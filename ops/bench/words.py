"""What people write on the command line of `gongwei bench`, made into numbers. Raises typer.BadParameter."""

from __future__ import annotations

import typer

_UNITS = {"k": 1_000, "m": 1_000_000}
_LEAST_SIZE = 8


def parse_size(text: str) -> int:
    """Bytes of `800`, `100k`, `6m`."""
    number, factor = text.strip().lower(), 1
    if number and number[-1] in _UNITS:
        number, factor = number[:-1], _UNITS[number[-1]]
    if not number.isdigit() or int(number) * factor < _LEAST_SIZE:
        raise typer.BadParameter(f"{text!r} is not a size of at least {_LEAST_SIZE} bytes: write 800, 100k or 6m")
    return int(number) * factor


def parse_batch(text: str) -> int:
    """Frames of one call."""
    if not text.strip().isdigit() or not 1 <= int(text) <= 256:
        raise typer.BadParameter(f"{text!r} is not a number of frames from 1 to 256")
    return int(text)


def parse_transports(text: str) -> list[str]:
    """`tcp`, `ipc` or `tcp,ipc`."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in ("tcp", "ipc")]:
        raise typer.BadParameter(f"transport {unknown[0]!r} is unknown: use tcp, ipc or tcp,ipc")
    return names


def parse_models(text: str) -> int:
    """A number of models."""
    # More models than data ports of the line would be refused by the broker.
    if not text.strip().isdigit() or not 1 <= int(text) <= 16:
        raise typer.BadParameter(f"{text!r} is not a number of models from 1 to 16")
    return int(text)
