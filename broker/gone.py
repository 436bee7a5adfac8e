"""Which frames of a boot were deleted: runs of seqs, so that no deleted frame is ever taken for a new one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Runs that are kept of one boot. With more, what lies between the oldest counts as deleted too: seqs that never became
#: a frame, and are far behind what their camera sends.
RUNS: Final = 256

#: First and last seq, both deleted, like all between.
Run = tuple[int, int]


def merged(runs: Iterable[Run], seqs: Iterable[int], limit: int = RUNS) -> list[Run]:
    """`runs` and single `seqs` as the fewest runs, in order; of more than `limit` the oldest become one."""
    found: list[Run] = []
    for first, last in sorted([*runs, *((seq, seq) for seq in seqs)]):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    surplus = len(found) - limit
    return found if surplus <= 0 else [(found[0][0], found[surplus][1]), *found[surplus + 1 :]]
