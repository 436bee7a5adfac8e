"""Average precision as COCO defines it, at one overlap, and the interval around a share. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct

#: Recalls at which precision is read.
_RECALLS: Final = np.linspace(0, 1, 101)


class Claim(NamedTuple):
    """One detection: its class, its score, and its overlap (intersection over union) with each defect of the picture,
    0 for those of other classes."""

    name: str
    score: float
    overlaps: tuple[float, ...]


class Sight(NamedTuple):
    """What one picture shows, as class names, and what a model claims of it."""

    truth: tuple[str, ...]
    claims: tuple[Claim, ...]


class Share(Struct, frozen=True):
    """`hits` of `count`, and Wilson's interval around their share, at 95 %."""

    hits: int
    count: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.hits / self.count if self.count else math.nan


def share(hits: int, count: int, z: float = 1.959964) -> Share:
    """The share and its interval; from 0 to 1 where nothing was counted."""
    if not count:
        return Share(hits, count, 0.0, 1.0)
    part, weight = hits / count, z * z / count
    middle = (part + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(part * (1 - part) / count + weight / (4 * count))
    return Share(hits, count, max(0.0, middle - half), min(1.0, middle + half))


def average_precisions(sights: Iterable[Sight], names: Sequence[str], overlap: float = 0.5) -> dict[str, float]:
    """Average precision of each class that occurs; a claim is right when it overlaps a defect by at least `overlap`."""
    seen = list(sights)
    return {name: _average(seen, name, overlap) for name in names if any(name in sight.truth for sight in seen)}


def matched(sight: Sight, overlap: float = 0.5) -> list[int | None]:
    """For each claim, best score first as `sight.claims` must be, the defect that it finds; a defect is found once."""
    free, found = set(range(len(sight.truth))), list[int | None]()
    for claim in sight.claims:
        open_ones = [place for place in free if sight.truth[place] == claim.name and claim.overlaps[place] >= overlap]
        best = max(open_ones, key=lambda place: claim.overlaps[place], default=None)
        found.append(best)
        if best is not None:
            free.remove(best)
    return found


def _average(sights: list[Sight], name: str, overlap: float) -> float:
    scores, right, count = [], [], 0
    for sight in sights:
        count += sight.truth.count(name)
        claims = tuple(sorted((c for c in sight.claims if c.name == name), key=lambda c: -c.score))
        found = matched(sight._replace(claims=claims), overlap)
        scores += [claim.score for claim in claims]
        right += [place is not None for place in found]
    if not scores:
        return 0.0
    order = np.argsort(-np.array(scores), kind="stable")
    hits = np.cumsum(np.array(right)[order])
    recalls, precisions = hits / count, hits / np.arange(1, len(hits) + 1)
    # Precision at a recall is the best that is reached there or beyond.
    best = np.maximum.accumulate(precisions[::-1])[::-1]
    at = np.searchsorted(recalls, _RECALLS, side="left")
    return float(np.where(at < len(best), best[np.minimum(at, len(best) - 1)], 0.0).mean())
