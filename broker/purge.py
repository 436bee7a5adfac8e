"""Deletes from the ledger: the oldest publications with all that belongs to them, and skips of their age.

Publications go in their order and without a hole, so that catch-up needs one number to say what is gone. What is
deleted is counted in `deleted`, and the keys of frames and skips stay in `gone`: they are never accepted again.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from broker import leftovers
from broker.gone import merged
from broker.instants import AHEAD, FIRST, Instants, instant
from broker.ledger_file import one
from broker.purged import Purged
from broker.retention import Delete, Holding
from broker.rows import SEQ_BITS, SEQ_LIMIT
from broker.wire import Key

#: Publications that are looked up at once, and skips that a step deletes where no more have to go.
LOOKED_UP: Final = 32
SKIPS: Final = 256
#: Bytes of answers after which a step ends: pages of large ones take time each.
STEP_BYTES: Final = 1 << 20

_OLDEST: Final = f"""
SELECT p.seq, p.frame, CASE WHEN p.frame IS NULL THEN p.head END AS body, f.accepted_at, f.outcome, f.verdict,
    f.frame IS NOT NULL AS kept, f.part_row IS NOT NULL AND t.closed_at IS NULL AS inside, l.station, b.camera, b.name
FROM published p LEFT JOIN frames f ON f.frame = p.frame LEFT JOIN parts t ON t.part = f.part_row
LEFT JOIN plans l ON l.plan = f.plan LEFT JOIN boots b ON b.boot = p.frame >> {SEQ_BITS}
ORDER BY p.seq LIMIT ?"""
_OLD_SKIPS: Final = "SELECT frame FROM skips WHERE noted_at < ? ORDER BY noted_at LIMIT ?"
#: Skips of a clock that had not been set count from now on.
_DATE_SKIPS: Final = "UPDATE skips SET noted_at = ? WHERE frame IN (SELECT frame FROM skips WHERE noted_at < ? LIMIT ?)"


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

    def instant(self, instants: Instants) -> float:
        """Unix seconds from which its age counts."""
        return instants.of(self.seq, instant(self.body, self.accepted_at))


def holding(db: sqlite3.Connection, latest: float = math.inf) -> Holding:
    """What decides whether there is something to delete; `oldest` is None where the oldest may not be. `latest`: unix
    seconds; instants beyond are not believed."""
    first = db.execute(_OLDEST, (1,)).fetchone()
    row = None if first is None else _Row(*first)
    skip: float | None = one(db, "SELECT min(noted_at) FROM skips")
    began = None if row is None else row.instant(Instants(db, latest))
    if row is not None and began is not None and (skip is None or skip >= began):
        oldest = None if row.inside else began
    else:
        oldest = skip
    return Holding(
        pages=one(db, "PRAGMA page_count"),
        free=one(db, "PRAGMA freelist_count"),
        page=one(db, "PRAGMA page_size"),
        shrinks=one(db, "PRAGMA auto_vacuum") == 2,
        oldest=oldest,
    )


def oldest(db: sqlite3.Connection, step: Delete) -> Purged:
    """Delete publications until `step.seconds` have gone by and `step.least` rows have gone, or one is to be kept: it
    is young, or of an open part. Then the skips and parts of that age."""
    purged = Purged()
    seqs: defaultdict[int, list[int]] = defaultdict(list)
    count, bound = _publications(db, step, purged, seqs)
    most = max(SKIPS, step.least - count)
    if FIRST < step.latest < math.inf:
        db.execute(_DATE_SKIPS, (step.latest - AHEAD, FIRST, most))
    for boot, numbers in _skips(db, bound, most, purged).items():
        seqs[boot] += numbers
    for boot, numbers in seqs.items():
        _remember(db, boot, numbers)
    leftovers.parts(db, step.closed_before, count + LOOKED_UP, purged)
    purged.record(db)
    return purged


def _publications(
    db: sqlite3.Connection, step: Delete, purged: Purged, seqs: defaultdict[int, list[int]]
) -> tuple[int, float]:
    """Returns how many went, and the age (unix seconds) up to which the stream is deleted now; fills in `seqs`: boot ->
    seqs of the frames that went."""
    until = time.perf_counter() + step.seconds
    left = STEP_BYTES
    count = 0
    instants = Instants(db, step.latest)
    for row in _rows(db):
        began = row.instant(instants)
        if row.inside or (step.before != math.inf and began >= step.before):
            return count, min(step.before, began)
        db.execute("DELETE FROM published WHERE seq = ?", (row.seq,))
        count += 1
        purged.rows["published", "", ""] += 1
        if row.frame is not None and row.kept:
            left -= _frame(db, row, purged)
            seqs[row.frame >> SEQ_BITS].append(row.frame & (SEQ_LIMIT - 1))
        elif row.frame is not None:  # its frame went with an earlier publication
            purged.rows["duplicates", "", ""] += 1
        if count >= step.least and (left < 0 or time.perf_counter() >= until):
            return count, min(step.before, began)
    return count, step.before


def _rows(db: sqlite3.Connection) -> Iterator[_Row]:
    """The oldest publications; each batch is looked up when those before it are deleted."""
    while rows := db.execute(_OLDEST, (LOOKED_UP,)).fetchall():
        yield from map(_Row._make, rows)


def shrink(db: sqlite3.Connection, pages: int) -> Purged:
    """Give free pages at the end of the file back to the disk; the file gets smaller with the next checkpoint."""
    before = one(db, "PRAGMA page_count")
    db.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` would stop after the first page
    return Purged(pages=before - one(db, "PRAGMA page_count"))


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


def _skips(db: sqlite3.Connection, before: float, most: int, purged: Purged) -> Mapping[int, list[int]]:
    """Delete the oldest skips; boot -> their seqs."""
    frames = db.execute(_OLD_SKIPS, (before, most)).fetchall()
    db.executemany("DELETE FROM skips WHERE frame = ?", frames)
    seqs: defaultdict[int, list[int]] = defaultdict(list)
    for (frame,) in frames:
        seqs[frame >> SEQ_BITS].append(frame & (SEQ_LIMIT - 1))
    for boot, numbers in seqs.items():
        purged.rows["skips", one(db, "SELECT camera FROM boots WHERE boot = ?", boot), ""] += len(numbers)
    return seqs


def _remember(db: sqlite3.Connection, boot: int, seqs: Iterable[int]) -> None:
    """Note that frames and skips are gone."""
    before = db.execute("SELECT first, last FROM gone WHERE boot = ?", (boot,)).fetchall()
    after = merged(before, seqs)
    over, new = set(before).difference(after), set(after).difference(before)
    db.executemany("DELETE FROM gone WHERE boot = ? AND first = ?", [(boot, first) for first, _ in over])
    db.executemany("INSERT INTO gone VALUES (?, ?, ?)", [(boot, *run) for run in new])
