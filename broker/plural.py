"""How many of something there are, in words."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """ "1 class", "2 classes", "0 boxes"."""
    if count != 1:
        noun += "es" if noun.endswith(("s", "x")) else "s"
    return f"{count} {noun}"
