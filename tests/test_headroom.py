"""What a disk must have free before the ledger is written: asked of a real disk, and of a log that is not moved."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import headroom
from broker.ledger_file import LedgerFull
from broker.rows import LateRow, PublishedRow, ResultRow, Rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    """A table of blobs, whose log is moved only when told."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("CREATE TABLE t (x BLOB)")
        yield db


def write(db: sqlite3.Connection, megabytes: int) -> None:
    db.executemany("INSERT INTO t VALUES (?)", [(bytes(1 << 20),)] * megabytes)


def test_what_is_in_the_log_is_owed_until_it_is_moved(db: sqlite3.Connection, path: Path) -> None:
    write(db, 3)
    assert 3 << 20 <= headroom.owed(db, path) <= 4 << 20
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    assert headroom.owed(db, path) == 0
    write(db, 1)
    assert 1 << 20 <= headroom.owed(db, path) <= 2 << 20


def test_more_than_the_disk_has_is_refused(db: sqlite3.Connection, path: Path) -> None:
    headroom.check_commit(db, path, 1 << 20)
    with pytest.raises(LedgerFull, match=r"the disk has .* MB free, and .* MB are needed"):
        headroom.check_commit(db, path, shutil.disk_usage(path.parent).total)


def test_what_fits_into_free_pages_asks_for_nothing(db: sqlite3.Connection, path: Path) -> None:
    write(db, 4)
    db.execute("DELETE FROM t")
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    assert free * 4096 > 3 << 20
    headroom.check_commit(db, Path("/nowhere/at/all") / path.name, 3 << 20)


def test_the_size_of_rows_is_no_less_than_what_they_take(tmp_path: Path) -> None:
    body = bytes(5000)
    rows = Rows(
        results=[ResultRow(frame, "alpha", "ok", "", 1, body) for frame in range(200)],
        late_results=[LateRow(frame, "beta", 1, "ok", "", body) for frame in range(200)],
        published=[PublishedRow(seq, None, 1, seq, body) for seq in range(200)],
        lines=[("digest", "x" * 5000)],
    )
    assert 601 * 5000 < rows.size < 601 * 5000 * 1.3
