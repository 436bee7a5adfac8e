"""The ledger's file: who may write it, its settings, its tables and those of earlier versions, and its size."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from broker import schema

#: Seconds to wait where another program holds the file.
BUSY: Final = 0.1
#: Pages in the write-ahead log after which a commit moves them into the file, and bytes that the log keeps then.
CHECKPOINT_PAGES: Final = 4000
LOG_KEPT: Final = 64 << 20
#: KB of pages that are kept in memory.
CACHE_KB: Final = 16384


class LedgerError(Exception):
    """The ledger cannot be opened, read or written; what was not committed is not in it."""


class LedgerFull(LedgerError):
    """The disk, or what the ledger may take of it, has no room. `added`: bytes of pages that were to be written, as far
    as that is known."""

    def __init__(self, text: str, added: int = 0) -> None:
        super().__init__(text)
        self.added = added


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        # The log's index meets a full disk too, and says so in its own way.
        full = code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE
        raise (LedgerFull if full else LedgerError)(f"{path}: {error}") from error


def one(db: sqlite3.Connection, query: str, *values: Any) -> Any:
    """The only value that a query gives."""
    return db.execute(query, values).fetchone()[0]


def take_lock(path: Path) -> sqlite3.Connection:
    """A lock that ends with the process, on every system: an open transaction on a database beside the ledger."""
    lock = sqlite3.connect(f"{path}.lock", timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        raise LedgerError(f"{path}: another join is running on this ledger ({error})") from error
    return lock


def prepare(db: sqlite3.Connection, path: Path, log: int) -> None:
    """Make or check the tables, and set how the file is written. `log`: bytes for the write-ahead log, 0: the usual."""
    version = one(db, "PRAGMA user_version")
    if version == 0 and one(db, "SELECT count(*) FROM sqlite_master") == 0:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or never without a VACUUM
        db.executescript(schema.TABLES.replace("{ledger_id}", secrets.token_hex(8)))
    elif version in schema.MIGRATIONS:
        db.executescript(schema.MIGRATIONS[version])
    elif version != schema.VERSION:
        raise LedgerError(refusal(path, version))
    if one(db, "PRAGMA journal_mode = WAL") != "wal":
        raise LedgerError(f"{path}: this file system cannot hold a ledger (no write-ahead log); put it on a local disk")
    page = one(db, "PRAGMA page_size")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = {-CACHE_KB}")
    db.execute("PRAGMA cache_spill = OFF")  # nothing of a transaction is in the log before it was found to fit
    db.execute("PRAGMA secure_delete = FAST")  # deleting writes no page for the sake of zeros
    db.execute(f"PRAGMA journal_size_limit = {log // 2 or LOG_KEPT}")
    db.execute(f"PRAGMA wal_autocheckpoint = {min(CHECKPOINT_PAGES, log // 4 // page) if log else CHECKPOINT_PAGES}")


def refusal(path: Path, version: int) -> str:
    """Why a file whose tables are of this version is not taken, and what to do."""
    if version > schema.VERSION:
        return (
            f"{path}: made by a newer version of the program (schema {version}, this one knows {schema.VERSION});"
            " go back to that version, which goes on with it, or name another file as [ledger] path in the line file"
        )
    return (
        f"{path}: not a ledger that can be taken over (schema {version}; {min(schema.MIGRATIONS)} to {schema.VERSION}"
        " can); move the file away, or name another one as [ledger] path in the line file"
    )


def log_size(path: Path) -> int:
    """Bytes of the write-ahead log's file."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except OSError:
        return 0


@contextlib.contextmanager
def in_passing(db: sqlite3.Connection) -> Iterator[None]:
    """What is committed inside waits neither for the disk nor for a checkpoint."""
    checkpoint = one(db, "PRAGMA wal_autocheckpoint")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    try:
        yield
    finally:
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}")


def size(path: Path) -> int:
    """Bytes on the disk, with the log and its index."""
    with contextlib.suppress(OSError):
        files = (path, Path(f"{path}-wal"), Path(f"{path}-shm"))
        return sum(file.stat().st_size for file in files if file.exists())
    return 0
