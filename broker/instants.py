"""From when a publication is: the clock that said so may have been wrong, and then its successors tell.

An instant of before this software, or of the future, is not known: the clock of the machine had not been set yet, or
was ahead. Such a publication is as old as one after it whose instant is known, and goes with that one.
"""

from __future__ import annotations

import math
import sqlite3
from typing import Final

import msgspec

from broker.ledger_file import one

#: Unix seconds (2020-01-01) before which nothing was recorded: clocks without a battery start in 1970, 1980 or 2000.
FIRST: Final = 1_577_836_800.0
#: Seconds by which an instant may lie ahead of the clock, for the clock was set back a little since.
AHEAD: Final = 60.0

_AFTER: Final = """
SELECT CASE WHEN p.frame IS NULL THEN p.head END, f.accepted_at
FROM published p LEFT JOIN frames f ON f.frame = p.frame WHERE p.seq >= ? ORDER BY p.seq LIMIT 1"""


class _PublishedAt(msgspec.Struct):
    published_at: float


_READ_PART: Final = msgspec.msgpack.Decoder(_PublishedAt)


def instant(body: bytes | None, accepted_at: float | None) -> float:
    """Unix seconds from which the age of a publication counts, by its own word: a part's `body` or a frame's
    `accepted_at`; 0.0 where it has none."""
    if body is None:
        return accepted_at or 0.0
    try:
        return _READ_PART.decode(body).published_at
    except msgspec.MsgspecError:  # nobody could read it
        return 0.0


class Instants:
    """The instants of publications in their order. `latest`: unix seconds; what is later is not known."""

    def __init__(self, db: sqlite3.Connection, latest: float) -> None:
        self._db = db
        self._latest = latest
        self._known = -1, 0.0  # seq, instant of a later publication

    def of(self, seq: int, said: float) -> float:
        """The instant of publication `seq`, which itself says `said`. Without a known one after it: infinite."""
        if self._is_known(said):
            return said
        if self._known[0] <= seq:
            self._known = self._successor(seq)
        return self._known[1]

    def _successor(self, seq: int) -> tuple[int, float]:
        """A publication after `seq` whose instant is known: the first, after a single run of wrong ones. It doubles its
        steps and then halves them, so that a long run is no long search."""
        newest: int = one(self._db, "SELECT coalesce(max(seq), 0) FROM published")
        found, wrong, step = (newest + 1, math.inf), seq, 1
        while wrong < newest and found[0] > newest:
            probe = min(seq + step, newest)
            said = self._said(probe)
            if self._is_known(said):
                found = probe, said
            else:
                wrong, step = probe, 2 * step
        while found[0] - wrong > 1:
            probe = (wrong + found[0]) // 2
            said = self._said(probe)
            if self._is_known(said):
                found = probe, said
            else:
                wrong = probe
        return found

    def _said(self, seq: int) -> float:
        """By the publication `seq`, or the next one that there is."""
        body, accepted_at = self._db.execute(_AFTER, (seq,)).fetchone()
        return instant(body, accepted_at)

    def _is_known(self, said: float) -> bool:
        return FIRST <= said <= self._latest
