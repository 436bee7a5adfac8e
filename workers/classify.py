"""What a classifier's output says: probabilities, and the best classes of them."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workers.errors import OutputError

Array: TypeAlias = NDArray[np.float32]

#: Classes that a result names.
TOP: Final = 5
#: How far a row of probabilities may be from summing to 1: quantised models round.
ROUNDING: Final = 0.05


def softmax(scores: Array) -> Array:
    """Probabilities of rows of logits."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def top(probabilities: Array, count: int = TOP) -> list[tuple[int, float]]:
    """The best classes of one row and their probabilities, best first. Raises OutputError when one is not finite."""
    if not np.isfinite(probabilities).all():
        raise OutputError("the model answered probabilities that are not finite: check its weights and input scaling")
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [(int(index), float(probabilities[index])) for index in best]


def are_shares(rows: Array) -> bool:
    """Every number lies in 0..1, as probabilities and independent scores do, and logits seldom."""
    return bool((rows >= 0).all() and (rows <= 1 + ROUNDING).all())


def are_probabilities(rows: Array) -> bool:
    """Every row lies in 0..1 and sums to 1: the model ends in its own softmax."""
    return are_shares(rows) and np.allclose(rows.sum(axis=-1), 1, atol=ROUNDING)
