"""What a disk must have free before the ledger is written: asked of a real disk, and of a log that is not moved."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import headroom
from broker.ledger import Ledger
from broker.ledger_file import LedgerFull, log_size


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
    assert 3 << 20 <= headroom.owed(headroom.pages(db), path) <= 4 << 20
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    assert headroom.owed(headroom.pages(db), path) == 0
    write(db, 1)
    assert 1 << 20 <= headroom.owed(headroom.pages(db), path) <= 2 << 20


def test_what_fits_into_free_pages_asks_for_nothing(db: sqlite3.Connection, path: Path) -> None:
    write(db, 4)
    db.execute("DELETE FROM t")
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    before = headroom.pages(db)
    assert before.free * before.size > 3 << 20
    db.execute("BEGIN")
    write(db, 3)
    headroom.check_commit(db, path, before)
    assert headroom.owed(headroom.pages(db), path) == 0
    db.execute("ROLLBACK")


def test_nothing_of_a_transaction_is_in_the_log_before_its_end(path: Path) -> None:
    """Else one that is refused would have taken the room already."""
    with Ledger(path) as ledger:
        before = log_size(path)
        with pytest.raises(LedgerFull), ledger._transaction() as db:
            db.execute("INSERT INTO lines (digest, text) VALUES ('digest', ?)", ("x" * (40 << 20),))
            raise LedgerFull("enough")
        assert log_size(path) - before < 1 << 20
