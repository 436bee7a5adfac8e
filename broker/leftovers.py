"""Deletes from the ledger what has lost its last frame: boots that are over, closed parts, plans, old line files."""

from __future__ import annotations

import math
import sqlite3
from typing import Final, NamedTuple

from broker.instants import FIRST
from broker.ledger_file import one
from broker.lookup import LINES
from broker.purged import Purged
from broker.retention import Tidy
from broker.rows import SEQ_BITS

#: Boots and parts that a round deletes at most.
BATCH: Final = 256
#: Plans from which on a start looks for those that no frame needs: it takes a look at every frame.
MANY_PLANS: Final = 64

_ENDED: Final = """
SELECT boot FROM boots b WHERE state = 'ended' AND boot > ? AND boot < ?
    AND EXISTS (SELECT 1 FROM boots n WHERE n.camera = b.camera AND n.boot > b.boot)
ORDER BY boot LIMIT ?"""
_CUT: Final = """
SELECT noted_at, boot FROM boots b WHERE state = 'cut' AND noted_at < ? AND (noted_at, boot) > (?, ?)
    AND EXISTS (SELECT 1 FROM boots n WHERE n.camera = b.camera AND n.boot > b.boot)
ORDER BY noted_at, boot LIMIT ?"""
#: Those of a clock that had not been set count from now on.
_DATE_CUT: Final = """
UPDATE boots SET noted_at = ? WHERE boot IN (SELECT boot FROM boots WHERE state = 'cut' AND noted_at < ? LIMIT ?)"""
_LEFT_PARTS: Final = """
SELECT p.part, p.station, p.verdict FROM
    (SELECT part, station, verdict FROM parts WHERE closed_at <= ? ORDER BY closed_at LIMIT ?) p
WHERE NOT EXISTS (SELECT 1 FROM frames f WHERE f.part_row = p.part)"""


class Place(NamedTuple):
    """How far the boots were looked through: number of one that ended, instant and number of one that was cut."""

    ended: int = 0
    cut: tuple[float, int] = (-math.inf, 0)


def tidy(db: sqlite3.Connection, after: Place, step: Tidy) -> tuple[Purged, Place]:
    """Delete boots that are over and parts that closed and have no frame any more; looks at `BATCH` of each, at boots
    beyond `after`. Returns the place after which to go on as well, the first one at the end."""
    purged = Purged()
    place = Place(_ended(db, after.ended, purged), _cut(db, after.cut, step, purged))
    parts(db, step.closed_before, BATCH, purged)
    purged.record(db)
    return purged, place


def _ended(db: sqlite3.Connection, after: int, purged: Purged) -> int:
    first = db.execute("SELECT frame FROM published WHERE frame IS NOT NULL ORDER BY seq LIMIT 1").fetchone()
    newest = one(db, "SELECT coalesce(max(boot), 0) FROM boots")
    limit = newest if first is None else first[0] >> SEQ_BITS
    boots = [boot for (boot,) in db.execute(_ENDED, (after, limit, BATCH)).fetchall()]
    for boot in boots:
        if _empty(db, boot):
            _boot(db, boot, purged)
    return boots[-1] if len(boots) == BATCH else 0


def _cut(db: sqlite3.Connection, after: tuple[float, int], step: Tidy, purged: Purged) -> tuple[float, int]:
    if step.now > FIRST:
        db.execute(_DATE_CUT, (step.now, FIRST, BATCH))
    boots = db.execute(_CUT, (step.cut_before, *after, BATCH)).fetchall()
    for _, boot in boots:
        if _empty(db, boot):
            _boot(db, boot, purged)
    return boots[-1] if len(boots) == BATCH else Place().cut


def parts(db: sqlite3.Connection, closed_before: float, most: int, purged: Purged) -> None:
    """Delete the oldest parts that have no frame any more."""
    for part, station, verdict in db.execute(_LEFT_PARTS, (closed_before, most)).fetchall():
        db.execute("DELETE FROM parts WHERE part = ?", (part,))
        purged.rows["parts", station, verdict] += 1


def plans(db: sqlite3.Connection) -> None:
    """Delete plans that no frame needs, and line files that no plan names, but the newest. Only at a start, before
    anything is in memory, and only when there are many."""
    if one(db, "SELECT count(*) FROM plans") > MANY_PLANS:
        db.execute("DELETE FROM plans WHERE plan NOT IN (SELECT DISTINCT plan FROM frames)")
    db.execute(
        "DELETE FROM lines WHERE digest NOT IN (SELECT digest FROM plans)"
        " AND line NOT IN (SELECT line FROM lines ORDER BY line DESC LIMIT ?)",
        (LINES,),
    )


def _empty(db: sqlite3.Connection, boot: int) -> bool:
    """Whether a boot has neither frames nor skips."""
    row_ids = boot << SEQ_BITS, ((boot + 1) << SEQ_BITS) - 1
    found = (
        db.execute(f"SELECT 1 FROM {table} WHERE frame BETWEEN ? AND ? LIMIT 1", row_ids).fetchone()
        for table in ("frames", "skips")
    )
    return all(row is None for row in found)


def _boot(db: sqlite3.Connection, boot: int, purged: Purged) -> None:
    """Delete a boot that is over: its camera has a newer one, and will not send its frames again."""
    camera, name, state = db.execute("SELECT camera, name, state FROM boots WHERE boot = ?", (boot,)).fetchone()
    db.execute("DELETE FROM gone WHERE boot = ?", (boot,))
    db.execute("DELETE FROM boots WHERE boot = ?", (boot,))
    purged.rows["boots", "", state] += 1
    purged.boots.append((camera, name))
