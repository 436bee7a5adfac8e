"""What a person asks of a model: which file, how many sessions, how large batches, which thresholds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from workers.engine.fake import Fake
from workers.model import Hints

#: Least score of a detection, and the overlap over which boxes of a class are one, where nobody says anything else.
CONFIDENCE: Final = 0.25
IOU: Final = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """One model of a worker process. Durations are seconds.

    `threads`: sessions, each with its own engine. `max_batch`: jobs in one call at most; `max_delay`: how long a job
    may wait for others to fill it. `engine_threads`: threads inside one call, 0: the cores divided among the sessions.
    `confidence`, `iou`: None where nobody says; then the file's, or `CONFIDENCE` and `IOU`, and a confidence no greater
    than `least_score`, the least that a rule asks for.
    """

    name: str
    source: Path | Fake
    threads: int = 1
    max_batch: int = 1
    max_delay: float = 0.0
    device: str = "cpu"
    engine_threads: int = 0
    confidence: float | None = None
    iou: float | None = None
    least_score: float = 1.0
    hints: Hints = field(default_factory=Hints)
