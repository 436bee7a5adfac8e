"""Room on the disk that the ledger's log must leave free: the file has to grow by what was committed beyond its end.

Without that room the log can never be moved into the file, so it never begins anew, so that nothing can be written or
deleted any more: a ledger that has filled its disk to the last byte is stuck until someone makes room. So a write is
refused in time, while a deletion still fits.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Final

from broker.ledger_file import LedgerFull, one

#: Bytes that stay free beside what is counted here: pages of indices that a commit touches, and the log's own index.
FOR_COMMITS: Final = 4 << 20
#: The same for deletions, which go on when commits are refused.
FOR_DELETIONS: Final = 1 << 20


def owed(db: sqlite3.Connection, path: Path) -> int:
    """Bytes by which the file has to grow to take in its log."""
    try:
        size = path.stat().st_size
    except OSError:
        return 0
    pages: int = one(db, "PRAGMA page_count")
    return max(0, pages * int(one(db, "PRAGMA page_size")) - size)


def check_commit(db: sqlite3.Connection, path: Path, size: int) -> None:
    """Raises LedgerFull where the disk has no room for `size` bytes in the log and, as far as they do not fit into free
    pages, once more in the file. What fits there needs the log's room alone, which SQLite asks for itself."""
    spare = one(db, "PRAGMA freelist_count") * one(db, "PRAGMA page_size")
    growth = owed(db, path) + max(0, size - spare)
    if growth:
        _check(path, growth + size + FOR_COMMITS)


def check_deletion(db: sqlite3.Connection, path: Path) -> None:
    """Raises LedgerFull where the disk has no more room than the log needs to be moved."""
    if growth := owed(db, path):
        _check(path, growth + FOR_DELETIONS)


def _check(path: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:  # a disk that cannot be asked: SQLite will meet its end
        return
    if free < needed:
        raise LedgerFull(
            f"{path}: the disk has {free / 2**20:.1f} MB free, and {needed / 2**20:.1f} MB are needed: make room"
            " on it, or have the ledger keep less ([ledger] keep_days, keep_gb in the line file)"
        )
