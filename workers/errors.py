"""Errors of the workers.

WorkersError
  ImageError     a payload that cannot be looked at; ends its job as `failed`, never the session
  ModelError     a model file whose meaning is unknown
    AbsentError  a model that is not there
    UsageError   a command's words that mean nothing; exit code 2
  EngineError    a model that cannot be loaded or run
  OutputError    a model that answers what is no number; ends its job as `failed: not_finite`, never as "found nothing"
  RefusedError   the broker will not have this worker
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class WorkersError(Exception):
    """Root of every error of this package; its text says what was wrong, where, and what to do."""


class ImageError(WorkersError):
    """A payload that is not the picture its header describes.

    `reason` is one of `image.REASONS` (it becomes the reason of a failed result); `detail` says what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ModelError(WorkersError):
    """A model that cannot be found, or whose task, classes or scaling are unknown and must be said."""


class UsageError(ModelError):
    """Words of a command, or of a line file, that mean nothing whatever the machine holds."""


class AbsentError(ModelError):
    """Model `name` has no file at any of `places`; `near`: names of models that are there; `advice`: what to do."""

    def __init__(self, name: str, places: Sequence[Path], near: Sequence[str], advice: str) -> None:
        meant = f"did you mean {' or '.join(near)}?" if near else ""
        looked = "\n".join(f"  {path}" for path in places)
        super().__init__("\n".join(filter(None, [f"model {name}: no file; looked for", looked, meant, advice])))
        #: The same in one line, without advice.
        self.brief = f"no file {', '.join(map(str, places))}" + (f" ({meant})" if meant else "")


class EngineError(WorkersError):
    """A model that its engine cannot load or run."""


class OutputError(WorkersError):
    """A model's output that is no answer (NaN or infinite): nobody looked at this picture."""


class RefusedError(WorkersError):
    """The broker refused this worker for good, for instance because its name is taken."""
