"""Deletes from the ledger: the oldest publications with all that belongs to them, and what has lost its last frame.

Publications go in their order and without a hole, so that catch-up needs one number to say what is gone. What is
deleted is counted in `deleted`, and the keys of frames and skips stay in `gone`: they are never accepted again.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from broker.gone import merged
from broker.ledger_file import one
from broker.lookup import LINES
from broker.retention import Delete, Holding, Tidy
from broker.rows import SEQ_BITS, SEQ_LIMIT
from broker.wire import Key

#: Publications that are looked up at once, and skips, boots or parts that a step deletes at most.
LOOKED_UP: Final = 32
BATCH: Final = 256
#: Bytes of answers after which a step ends: pages of large ones take time each.
STEP_BYTES: Final = 1 << 20
#: Plans from which on a start looks for those that no frame needs: it takes a look at every frame.
MANY_PLANS: Final = 64

_OLDEST: Final = f"""
SELECT p.seq, p.frame, CASE WHEN p.frame IS NULL THEN p.head END AS body, f.accepted_at, f.outcome, f.verdict,
    f.frame IS NOT NULL AS kept, f.part_row IS NOT NULL AND t.closed_at IS NULL AS inside, l.station, b.camera, b.name
FROM published p LEFT JOIN frames f ON f.frame = p.frame LEFT JOIN parts t ON t.part = f.part_row
LEFT JOIN plans l ON l.plan = f.plan LEFT JOIN boots b ON b.boot = p.frame >> {SEQ_BITS}
ORDER BY p.seq LIMIT ?"""
_ADD: Final = "INSERT INTO deleted VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"
_ENDED: Final = """
SELECT boot FROM boots b WHERE state = 'ended' AND boot > ? AND boot < ?
    AND EXISTS (SELECT 1 FROM boots n WHERE n.camera = b.camera AND n.boot > b.boot)
ORDER BY boot LIMIT ?"""
_LEFT_PARTS: Final = """
SELECT p.part, p.station, p.verdict FROM
    (SELECT part, station, verdict FROM parts WHERE closed_at <= ? ORDER BY closed_at LIMIT ?) p
WHERE NOT EXISTS (SELECT 1 FROM frames f WHERE f.part_row = p.part)"""


class _PublishedAt(msgspec.Struct):
    published_at: float


_READ_PART: Final = msgspec.msgpack.Decoder(_PublishedAt)


class _Row(NamedTuple):
    """A publication, and of a frame's what is counted."""

    seq: int
    frame: int | None
    body: bytes | None
    accepted_at: float | None
    outcome: str | None
    verdict: str | None
    kept: int
    inside: int
    station: str | None
    camera: str | None
    boot: str | None

    @property
    def instant(self) -> float:
        """Unix seconds from which its age counts."""
        if self.body is None:
            return self.accepted_at or 0.0
        try:
            return _READ_PART.decode(self.body).published_at
        except msgspec.MsgspecError:  # nobody could read it
            return 0.0


@dataclass(slots=True)
class Purged:
    """What a step deleted. `rows`: (what, name, kind) -> how many, as in the table `deleted`; `keys`: frames; `pages`:
    given back to the disk."""

    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    keys: list[Key] = field(default_factory=list)
    pages: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.pages)


def holding(db: sqlite3.Connection) -> Holding:
    """What decides whether there is something to delete; `oldest` is None where the oldest may not be."""
    first = db.execute(_OLDEST, (1,)).fetchone()
    return Holding(
        pages=one(db, "PRAGMA page_count"),
        free=one(db, "PRAGMA freelist_count"),
        page=one(db, "PRAGMA page_size"),
        shrinks=one(db, "PRAGMA auto_vacuum") == 2,
        oldest=None if first is None or first[7] else _Row(*first).instant,
    )


def oldest(db: sqlite3.Connection, step: Delete) -> Purged:
    """Delete publications until `step.seconds` have gone by, or one is to be kept: it is young, or of an open part."""
    purged = Purged()
    until = time.perf_counter() + step.seconds
    seqs: defaultdict[int, list[int]] = defaultdict(list)
    left = STEP_BYTES
    for row in _rows(db):
        if row.inside or (step.before != math.inf and row.instant >= step.before):
            break
        db.execute("DELETE FROM published WHERE seq = ?", (row.seq,))
        purged.rows["published", "", ""] += 1
        if row.frame is not None and row.kept:
            left -= _frame(db, row, purged)
            seqs[row.frame >> SEQ_BITS].append(row.frame & (SEQ_LIMIT - 1))
        elif row.frame is not None:  # its frame went with an earlier publication
            purged.rows["duplicates", "", ""] += 1
        if left < 0 or time.perf_counter() >= until:
            break
    for boot, numbers in seqs.items():
        _remember(db, boot, numbers, max(numbers), purged)
    _count(db, purged)
    return purged


def _rows(db: sqlite3.Connection) -> Iterator[_Row]:
    """The oldest publications; each batch is looked up when those before it are deleted."""
    while rows := db.execute(_OLDEST, (LOOKED_UP,)).fetchall():
        yield from map(_Row._make, rows)


def leftovers(db: sqlite3.Connection, after: int, step: Tidy) -> tuple[Purged, int]:
    """Delete boots that ended and parts that closed and have no frame any more; looks at `BATCH` of each, at boots
    above number `after`. Returns the number after which to go on as well, 0 at the end."""
    purged = Purged()
    first = db.execute("SELECT frame FROM published WHERE frame IS NOT NULL ORDER BY seq LIMIT 1").fetchone()
    newest = one(db, "SELECT coalesce(max(boot), 0) FROM boots")
    limit = newest if first is None else first[0] >> SEQ_BITS
    boots = [boot for (boot,) in db.execute(_ENDED, (after, limit, BATCH)).fetchall()]
    for boot in boots:
        if _empty(db, boot):
            _boot(db, boot, purged)
    for part, station, verdict in db.execute(_LEFT_PARTS, (step.closed_before, BATCH)).fetchall():
        db.execute("DELETE FROM parts WHERE part = ?", (part,))
        purged.rows["parts", station, verdict] += 1
    _count(db, purged)
    return purged, boots[-1] if len(boots) == BATCH else 0


def shrink(db: sqlite3.Connection, pages: int) -> Purged:
    """Give free pages at the end of the file back to the disk; the file gets smaller with the next checkpoint."""
    before = one(db, "PRAGMA page_count")
    db.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` would stop after the first page
    return Purged(pages=before - one(db, "PRAGMA page_count"))


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


def _frame(db: sqlite3.Connection, row: _Row, purged: Purged) -> int:
    """Delete a frame and all that was recorded of it; returns the bytes of its answers."""
    number, rows, size = row.frame, purged.rows, 0
    camera, station = row.camera or "", row.station or ""
    assert number is not None
    answers = "SELECT model, status, tries, length(body) FROM results WHERE frame = ?"
    for model, status, tries, length in db.execute(answers, (number,)).fetchall():
        rows["results", model, status] += 1
        if tries > 1:
            rows["requeued", "", ""] += tries - 1
        size += length
    late = "SELECT model, length(body) FROM late_results WHERE frame = ?"
    for model, length in db.execute(late, (number,)).fetchall():
        rows["late_results", model, ""] += 1
        size += length
    for table in ("results", "late_results", "suspects", "frames"):
        db.execute(f"DELETE FROM {table} WHERE frame = ?", (number,))
    rows["frames", camera, row.outcome or ""] += 1
    rows["verdicts", station, row.verdict or ""] += 1
    purged.keys.append(Key(camera, row.boot or "", number & (SEQ_LIMIT - 1)))
    return size


def _remember(db: sqlite3.Connection, boot: int, seqs: Iterable[int], highest: int, purged: Purged) -> None:
    """Note that frames `seqs` are gone, and with them skips up to `highest`, which are deleted here."""
    start = boot << SEQ_BITS
    skips = db.execute(
        "SELECT frame FROM skips WHERE frame BETWEEN ? AND ? LIMIT ?", (start, start + highest, BATCH)
    ).fetchall()
    if skips:
        db.executemany("DELETE FROM skips WHERE frame = ?", skips)
        purged.rows["skips", one(db, "SELECT camera FROM boots WHERE boot = ?", boot), ""] += len(skips)
    before = db.execute("SELECT first, last FROM gone WHERE boot = ?", (boot,)).fetchall()
    after = merged(before, [*seqs, *(number - start for (number,) in skips)])
    over, new = set(before).difference(after), set(after).difference(before)
    db.executemany("DELETE FROM gone WHERE boot = ? AND first = ?", [(boot, first) for first, _ in over])
    db.executemany("INSERT INTO gone VALUES (?, ?, ?)", [(boot, *run) for run in new])


def _empty(db: sqlite3.Connection, boot: int) -> bool:
    start = boot << SEQ_BITS
    query = "SELECT 1 FROM frames WHERE frame BETWEEN ? AND ? LIMIT 1"
    return db.execute(query, (start, start + SEQ_LIMIT - 1)).fetchone() is None


def _boot(db: sqlite3.Connection, boot: int, purged: Purged) -> None:
    """Delete a boot that ended: its camera has a newer one, and will not send its frames again."""
    start = boot << SEQ_BITS
    _remember(db, boot, [], SEQ_LIMIT - 1, purged)
    if db.execute("SELECT 1 FROM skips WHERE frame BETWEEN ? AND ?", (start, start + SEQ_LIMIT - 1)).fetchone() is None:
        state = one(db, "SELECT state FROM boots WHERE boot = ?", boot)
        db.execute("DELETE FROM gone WHERE boot = ?", (boot,))
        db.execute("DELETE FROM boots WHERE boot = ?", (boot,))
        purged.rows["boots", "", state] += 1


def _count(db: sqlite3.Connection, purged: Purged) -> None:
    rows: list[tuple[Any, ...]] = [(*what, count) for what, count in purged.rows.items()]
    db.executemany(_ADD, rows)
