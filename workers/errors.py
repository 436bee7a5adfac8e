"""Errors of the workers.

WorkersError
  ImageError     a payload that cannot be looked at; ends its job as `failed`, never the session
  ModelError     a model file whose meaning is unknown, or that is not there
  EngineError    a model that cannot be loaded or run
  OutputError    a model that answers what is no number; ends its job as `failed: not_finite`, never as "found nothing"
  RefusedError   the broker will not have this worker
"""

from __future__ import annotations


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


class EngineError(WorkersError):
    """A model that its engine cannot load or run."""


class OutputError(WorkersError):
    """A model's output that is no answer (NaN or infinite): nobody looked at this picture."""


class RefusedError(WorkersError):
    """The broker refused this worker for good, for instance because its name is taken."""
