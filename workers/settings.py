"""What a model's file says about its use, beside what it is: how many pictures at once, and its thresholds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from workers.errors import ModelError

#: Metadata keys of our own; `workers import` writes them.
MAX_BATCH: Final = "gongwei.max_batch"
MAX_BATCH_REASON: Final = "gongwei.max_batch_reason"
CONFIDENCE_KEY: Final = "gongwei.confidence"
IOU_KEY: Final = "gongwei.iou"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`max_batch`: pictures in one call at most, and `reason`, why; `confidence` and `iou` from 0 to 1, where a command
    or a line file says none. None: the file says nothing."""

    max_batch: int | None = None
    reason: str = ""
    confidence: float | None = None
    iou: float | None = None

    def written(self) -> dict[str, str]:
        """As metadata."""
        said = {
            MAX_BATCH: self.max_batch,
            MAX_BATCH_REASON: self.reason or None,
            CONFIDENCE_KEY: self.confidence,
            IOU_KEY: self.iou,
        }
        return {key: str(value) for key, value in said.items() if value is not None}


def settings(metadata: Mapping[str, str], where: str) -> Settings:
    """What the file's metadata says. Raises ModelError for what is no such number."""
    most = metadata.get(MAX_BATCH)
    if most is not None and not (most.isascii() and most.isdigit() and 0 < len(most) < 5 and int(most) > 0):
        raise ModelError(f"{where}: its metadata says {MAX_BATCH} {most[:80]!r}: not a number from 1; import it again")
    return Settings(
        max_batch=None if most is None else int(most),
        reason=metadata.get(MAX_BATCH_REASON, "")[:1000],
        confidence=_threshold(metadata, CONFIDENCE_KEY, where),
        iou=_threshold(metadata, IOU_KEY, where),
    )


def _threshold(metadata: Mapping[str, str], key: str, where: str) -> float | None:
    text = metadata.get(key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ModelError(f"{where}: its metadata says {key} {text[:80]!r}: not a number from 0 to 1; import it again")
    return value
