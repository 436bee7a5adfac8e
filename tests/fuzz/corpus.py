"""Inputs to begin with: what a target makes of the repository's own examples, and the files of its corpus folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent / "corpus"


def files(target: str) -> list[bytes]:
    """The corpus folder of a target: small inputs worth keeping, above all those that once failed."""
    return [path.read_bytes() for path in sorted((FOLDER / target).glob("*")) if path.is_file()]


def vectors() -> list[list[bytes]]:
    """The segments of every test vector of the wire, the valid ones and the others."""
    everything: dict[str, list[dict[str, Any]]] = json.loads(
        (ROOT / "tests" / "vectors" / "wire.json").read_text(encoding="utf-8")
    )
    return [
        [bytes.fromhex(segment) for segment in vector["segments"]]
        for group in everything.values()
        for vector in group
        if "segments" in vector
    ]
