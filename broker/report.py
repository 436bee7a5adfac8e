"""What a ledger says happened: the counts that must reconcile. Reads beside a running join, and changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from broker import ledger_file, lookup, schema
from broker.ledger_file import LedgerError, one
from broker.rows import SEQ_BITS

_BY_CAMERA: Final = f"""
SELECT camera, count(*), count(outcome), sum(outcome IS 'complete'), sum(outcome IS 'incomplete'), sum(outcome IS NULL)
FROM frames JOIN boots ON boots.boot = frames.frame >> {SEQ_BITS} GROUP BY camera ORDER BY camera"""
_DUPLICATES: Final = """
SELECT count(*) FROM (SELECT 1 FROM published WHERE frame IS NOT NULL GROUP BY frame HAVING count(*) > 1)"""
_SKIPS: Final = f"""
SELECT camera, count(*) FROM skips JOIN boots ON boots.boot = skips.frame >> {SEQ_BITS} GROUP BY camera"""
_STATUSES: Final = "SELECT model, status, count(*) FROM results GROUP BY model, status"
_REQUEUED: Final = "SELECT coalesce(sum(tries - 1), 0) FROM results WHERE tries > 1"
_BOOTS: Final = "SELECT state, count(*) FROM boots GROUP BY state"
_VERDICTS: Final = """
SELECT station, verdict, count(*) FROM frames JOIN plans USING (plan) WHERE verdict IS NOT NULL
GROUP BY station, verdict"""
_PARTS: Final = "SELECT station, verdict, count(*) FROM parts WHERE verdict IS NOT NULL GROUP BY station, verdict"
_PUBLISHED: Final = "SELECT count(frame), count(DISTINCT frame), (SELECT count(*) FROM frames) FROM published"
_OLDEST_AT: Final = """
SELECT (SELECT accepted_at FROM published JOIN frames USING (frame) ORDER BY seq LIMIT 1)"""
_COUNTS: Final = ("accepted", "joined", "complete", "incomplete", "open")


#: Versions that can be read: what a report looks at is the same in all, but the first knows nothing of deletions.
_READABLE: Final = (*schema.MIGRATIONS, schema.VERSION)


def report(path: Path) -> dict[str, Any]:
    """Counts of the ledger at `path`, all from one instant. Totals are of all that ever was: what was deleted counts.

    `ledger_id`; `accepted`, `joined`, `complete`, `incomplete`, `open`: frames in all; `cameras`: the same by camera;
    `statuses`: model -> status -> frames; `duplicates`: frames that were published more than once, `unpublished`:
    joined frames that were not (both must be 0); `late_results`; `requeued`: tries beyond the first; `boots`: state ->
    count; `skips`: camera -> count; `verdicts`: station -> verdict -> frames; `parts`: the same for closed parts,
    `open_parts`; `published`: rows of the stream.

    What is kept of it: `frames`: those that are still there; `deleted`: what -> rows that are not; `oldest_seq`,
    `newest_seq` of the stream, `oldest_at`: unix seconds when its oldest frame was accepted, None without any; `bytes`
    on the disk. Raises LedgerError.
    """
    with _reading(path) as (db, version):
        return _report(db, _Deleted(db, version)) | {"bytes": ledger_file.size(path)}


def oldest_at(path: Path) -> float | None:
    """Unix seconds when the oldest frame that is kept was accepted; None without any. Raises LedgerError."""
    with _reading(path) as (db, _):
        found: float | None = one(db, _OLDEST_AT)
    return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[sqlite3.Connection, int]]:
    """The ledger as it is at one instant, and its version. Raises LedgerError."""
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("BEGIN")
            version = one(db, "PRAGMA user_version")
            if version not in _READABLE:
                raise LedgerError(ledger_file.refusal(path, version))
            yield db, version
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error


class _Deleted:
    """The table `deleted`; nothing of a ledger that has none."""

    def __init__(self, db: sqlite3.Connection, version: int) -> None:
        rows = [] if version < 2 else db.execute("SELECT what, name, kind, count FROM deleted").fetchall()
        self._rows: list[tuple[str, str, str, int]] = rows

    def total(self, what: str) -> int:
        return sum(count for each, _, _, count in self._rows if each == what)

    def totals(self) -> dict[str, int]:
        return {what: self.total(what) for what in dict.fromkeys(each for each, _, _, _ in self._rows)}

    def nested(self, what: str) -> Iterator[tuple[str, str, int]]:
        return ((name, kind, count) for each, name, kind, count in self._rows if each == what)


def _report(db: sqlite3.Connection, deleted: _Deleted) -> dict[str, Any]:
    cameras = _cameras(db, deleted)
    total = {name: sum(counts[name] for counts in cameras.values()) for name in _COUNTS}
    published, different, frames = db.execute(_PUBLISHED).fetchone()
    return {
        "ledger_id": one(db, "SELECT value FROM meta WHERE name = 'ledger_id'"),
        **total,
        "cameras": cameras,
        "statuses": _nested(db.execute(_STATUSES), deleted.nested("results")),
        "duplicates": (one(db, _DUPLICATES) if published > different else 0) + deleted.total("duplicates"),
        "unpublished": total["joined"] - deleted.total("frames") - different,
        "late_results": one(db, "SELECT count(*) FROM late_results") + deleted.total("late_results"),
        "requeued": one(db, _REQUEUED) + deleted.total("requeued"),
        "boots": _flat(db.execute(_BOOTS), ((state, count) for _, state, count in deleted.nested("boots"))),
        "skips": _flat(db.execute(_SKIPS), ((camera, count) for camera, _, count in deleted.nested("skips"))),
        "verdicts": _nested(db.execute(_VERDICTS), deleted.nested("verdicts")),
        "parts": _nested(db.execute(_PARTS), deleted.nested("parts")),
        "open_parts": one(db, "SELECT count(*) FROM parts WHERE closed_at IS NULL"),
        "published": one(db, "SELECT count(*) FROM published") + deleted.total("published"),
        "frames": frames,
        "deleted": deleted.totals(),
        "oldest_seq": lookup.oldest_seq(db),
        "newest_seq": lookup.last_seq(db),
        "oldest_at": one(db, _OLDEST_AT),
    }


def _cameras(db: sqlite3.Connection, deleted: _Deleted) -> dict[str, dict[str, int]]:
    kept = {camera: dict(zip(_COUNTS, counts, strict=True)) for camera, *counts in db.execute(_BY_CAMERA)}
    for camera, outcome, count in deleted.nested("frames"):
        counts = kept.setdefault(camera, dict.fromkeys(_COUNTS, 0))
        for name in ("accepted", "joined", outcome):
            counts[name] += count
    return dict(sorted(kept.items()))


def _flat(*rows: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, count in chain(*rows):
        found[name] += count
    return dict(found)


def _nested(*rows: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for outer, inner, count in chain(*rows):
        found.setdefault(outer, Counter())[inner] += count
    return {outer: dict(counts) for outer, counts in found.items()}
