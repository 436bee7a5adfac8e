"""How one model ended with one frame, as the ledger has it and as a consumer was told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """The terminal status of one model. `score`: of the one thing that the fake engine sees; None without an answer."""

    status: str
    reason: str
    tries: int
    score: float | None


def score(status: str, body: Mapping[str, Any]) -> float | None:
    """The score in the answer of a fake engine; None for anything else."""
    if status != "ok":
        return None
    try:
        detections = body["detections"]
        return float(detections[0]["score"]) if len(detections) == 1 else None
    except (KeyError, TypeError, IndexError, ValueError):
        return None
