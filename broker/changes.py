"""What a reload changes: two line files compared, key by key. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from broker import document
from broker.line import Line

#: A key that changed, and how.
_Difference = tuple[document.KeyPath, str]


def changes(old: Line, new: Line) -> tuple[list[str], list[str]]:
    """(what a reload from `old` to `new` changes, what it must not change), in words. Any refusal: change nothing."""
    allowed: list[str] = []
    refused: list[str] = []
    for path, words in _differences((), msgspec.to_builtins(old), msgspec.to_builtins(new)):
        if _reloadable(path):
            allowed.append(f"{document.dotted(path)}: {words}")
        else:
            refused.append(f"restart the line to change {document.dotted(path)}")
    return allowed, refused


def _differences(path: document.KeyPath, before: dict[str, Any], after: dict[str, Any]) -> Iterator[_Difference]:
    for key in before | after:
        old, new, here = before.get(key), after.get(key), (*path, key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(here, old, new)
        elif old is None or new is None:
            yield here, "added" if old is None else "removed"
        else:
            yield here, f"{document.shown(old)} -> {document.shown(new)}"


def _reloadable(path: document.KeyPath) -> bool:
    """Only what the broker and the join look up for each new frame can change while the line runs."""
    match path:
        case ("stations" | "routes", *_) | ("security", "keys", *_) | ("cameras" | "models", _) | ("limits", "window"):
            return True
        case ("cameras", _, "station" | "policy" | "deadline") | ("models", _, "file" | "sha256"):
            return True
    return False
