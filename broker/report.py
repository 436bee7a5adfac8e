"""What a ledger says happened: the counts that must reconcile. Reads beside a running join, and changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Final

from broker import schema
from broker.ledger import LedgerError
from broker.rows import SEQ_BITS

_BY_CAMERA: Final = f"""
SELECT camera, count(*), count(outcome), sum(outcome IS 'complete'), sum(outcome IS 'incomplete'), sum(outcome IS NULL)
FROM frames JOIN boots ON boots.boot = frames.frame >> {SEQ_BITS} GROUP BY camera ORDER BY camera"""
_DUPLICATES: Final = """
SELECT count(*) FROM (SELECT 1 FROM published WHERE frame IS NOT NULL GROUP BY frame HAVING count(*) > 1)"""
_SKIPS: Final = f"""
SELECT camera, count(*) FROM skips JOIN boots ON boots.boot = skips.frame >> {SEQ_BITS} GROUP BY camera"""


def report(path: Path) -> dict[str, Any]:
    """Counts of the ledger at `path`, all from one instant:

    `ledger_id`; `accepted`, `joined`, `complete`, `incomplete`, `open`: frames in all; `cameras`: the same by camera;
    `statuses`: model -> status -> frames; `duplicates`: frames that were published more than once, `unpublished`:
    joined frames that were not (both must be 0); `late_results`; `requeued`: tries beyond the first; `boots`: state ->
    count; `skips`: camera -> count; `verdicts`: station -> verdict -> frames; `parts`: the same for closed parts,
    `open_parts`; `published`: rows of the stream. Raises LedgerError.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("BEGIN")
            version = _one(db, "PRAGMA user_version")
            if version != schema.VERSION:
                raise LedgerError(f"{path}: not a ledger of this version (schema {version}, {schema.VERSION} expected)")
            return _report(db)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error


def _report(db: sqlite3.Connection) -> dict[str, Any]:
    names = ("accepted", "joined", "complete", "incomplete", "open")
    cameras = {camera: dict(zip(names, counts, strict=True)) for camera, *counts in db.execute(_BY_CAMERA)}
    total = {name: sum(counts[name] for counts in cameras.values()) for name in names}
    published, different = db.execute("SELECT count(frame), count(DISTINCT frame) FROM published").fetchone()
    return {
        "ledger_id": _one(db, "SELECT value FROM meta WHERE name = 'ledger_id'"),
        **total,
        "cameras": cameras,
        "statuses": _nested(db, "SELECT model, status, count(*) FROM results GROUP BY model, status"),
        "duplicates": _one(db, _DUPLICATES) if published > different else 0,
        "unpublished": total["joined"] - different,
        "late_results": _one(db, "SELECT count(*) FROM late_results"),
        "requeued": _one(db, "SELECT coalesce(sum(tries - 1), 0) FROM results WHERE tries > 1"),
        "boots": dict(db.execute("SELECT state, count(*) FROM boots GROUP BY state").fetchall()),
        "skips": dict(db.execute(_SKIPS).fetchall()),
        "verdicts": _nested(
            db,
            "SELECT station, verdict, count(*) FROM frames JOIN plans USING (plan)"
            " WHERE verdict IS NOT NULL GROUP BY station, verdict",
        ),
        "parts": _nested(
            db, "SELECT station, verdict, count(*) FROM parts WHERE verdict IS NOT NULL GROUP BY station, verdict"
        ),
        "open_parts": _one(db, "SELECT count(*) FROM parts WHERE closed_at IS NULL"),
        "published": _one(db, "SELECT count(*) FROM published"),
    }


def _one(db: sqlite3.Connection, query: str) -> Any:
    return db.execute(query).fetchone()[0]


def _nested(db: sqlite3.Connection, query: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for outer, inner, count in db.execute(query):
        found.setdefault(outer, {})[inner] = count
    return found
