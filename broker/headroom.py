"""Room on the disk that the ledger's log must leave free: the file has to grow by what was committed beyond its end.

Without that room the log can never be moved into the file, so it never begins anew, so that nothing can be written or
deleted any more: a ledger that has filled its disk to the last byte is stuck until someone makes room. So a write is
refused in time, while a deletion still fits.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from broker.ledger_file import LedgerFull, one

#: Bytes that stay free beside what is counted here: pages that a commit changes and does not add, and the log's index.
FOR_COMMITS: Final = 12 << 20
#: The same for deletions, which go on when commits are refused.
FOR_DELETIONS: Final = 8 << 20


class Pages(NamedTuple):
    """Of the ledger's file as the connection sees it, in a transaction too: `free` of `total`, `size` bytes each."""

    total: int
    free: int
    size: int


def pages(db: sqlite3.Connection) -> Pages:
    """As they are now."""
    return Pages(one(db, "PRAGMA page_count"), one(db, "PRAGMA freelist_count"), one(db, "PRAGMA page_size"))


def owed(now: Pages, path: Path) -> int:
    """Bytes by which the file has to grow to take in its log."""
    try:
        size = path.stat().st_size
    except OSError:
        return 0
    return max(0, now.total * now.size - size)


def check_commit(db: sqlite3.Connection, path: Path, before: Pages) -> None:
    """Raises LedgerFull at the end of a transaction, where the disk has no room for its log and for what the file then
    owes. What fits into free pages needs the log's room alone, which SQLite asks for itself. `before`: at its start."""
    now = pages(db)
    growth = owed(now, path)
    if growth:
        added = max(0, now.total - before.total + before.free - now.free) * now.size
        _check(path, growth + added + FOR_COMMITS, added)


def check_deletion(db: sqlite3.Connection, path: Path) -> None:
    """Raises LedgerFull where the disk has no more room than the log needs to be moved."""
    growth = owed(pages(db), path)
    if growth:
        _check(path, growth + FOR_DELETIONS, 0)


def _check(path: Path, needed: int, added: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:  # a disk that cannot be asked: SQLite will meet its end
        return
    if free < needed:
        raise LedgerFull(
            f"{path}: the disk has {free / 2**20:.1f} MB free, and {needed / 2**20:.1f} MB are needed: make room"
            " on it, or have the ledger keep less ([ledger] keep_days, keep_gb in the line file)",
            added,
        )
