"""The ledger: the SQLite file in which every accepted frame, every terminal status and every publication is a row.

`commit` writes one `Rows` in one transaction (WAL, synchronous=FULL): once it has returned, the rows survive a power
cut. What is old leaves it step by step (`retention` decides, `purge` deletes). One process writes; any number may read
meanwhile (`report`).
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from broker import headroom, ledger_file, leftovers, lookup, purge, schema
from broker.checkpointer import Checkpointer
from broker.ledger_file import BUSY, LedgerError, LedgerFull
from broker.purged import Purged
from broker.reserve import Reserve
from broker.retention import FOR_EVER, Delete, Holding, Keep, Shrink, Step
from broker.rows import Rows, Snapshot, Stored, StoredBoot
from broker.wire import Entry

__all__ = ["Ledger", "LedgerError", "LedgerFull"]


class Ledger:
    """The join's way to its file. Belongs to the thread that opened it; every method raises LedgerError.

    `keep`: what it may hold, to which its log is made to fit; deleting is `step`'s.
    """

    def __init__(self, path: Path, keep: Keep = FOR_EVER) -> None:
        self.path = path
        self.keep = keep
        self.ledger_id = ""
        self._db: sqlite3.Connection | None = None
        self._lock: sqlite3.Connection | None = None
        self.reserve = Reserve(path)
        self._checkpointer: Checkpointer | None = None
        self._written = 0  # publications and skips
        self._tidied = leftovers.Place()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Take the ledger for this process alone; a new file gets its tables and a random `ledger_id`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path = self.path.resolve()  # where a link leads: the log and the reserve lie there, on that disk
            self.reserve = Reserve(self.path)
            self._lock = ledger_file.take_lock(self.path)
            with ledger_file.translated(self.path):
                self._db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
                ledger_file.prepare(self._db, self.path, self.keep.log)
                self.ledger_id = ledger_file.one(self._db, "SELECT value FROM meta WHERE name = 'ledger_id'")
                if not self.keep.for_ever:
                    leftovers.plans(self._db)
            reserve = None if self.keep.for_ever else self.reserve
            self._checkpointer = Checkpointer(self.path, reserve).__enter__()
        except OSError as error:
            self.close()
            raise LedgerError(f"{self.path}: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._checkpointer is not None:
            self._checkpointer.__exit__()
            self._checkpointer = None
        for connection in (self._db, self._lock):
            if connection is not None:
                connection.close()
        self._db = self._lock = None

    def commit(self, rows: Rows) -> list[str]:
        """Write all of `rows`, or nothing. Returns the models of the late results that were not filed before."""
        filed: list[str] = []
        if not any(getattr(rows, name) for name in (*schema.WRITES, "late_results")):
            return filed
        with self._in_time(), self._transaction() as db:
            before = headroom.pages(db)
            for name, statement in schema.WRITES.items():
                if values := getattr(rows, name):
                    db.executemany(statement, values)
            for late in rows.late_results:
                if db.execute(schema.FILE_LATE, late).rowcount:
                    filed.append(late.model)
            headroom.check_commit(db, self.path, before)
        self._written += len(rows.published) + len(rows.skips)
        self._wrote()
        return filed

    def step(self, step: Step) -> Purged:
        """Do a step of retention, whole or not at all. It is flushed with the next commit: a deletion that a power cut
        undoes is done again."""
        with self._read() as db, self._in_time():
            headroom.check_deletion(db, self.path)
        with self._read() as db, ledger_file.in_passing(db):
            if isinstance(step, Shrink):
                purged = purge.shrink(db, step.pages)
            else:
                with self._transaction():
                    if isinstance(step, Delete):
                        purged = purge.oldest(db, step)
                    else:
                        purged, self._tidied = leftovers.tidy(db, self._tidied, step)
        if purged:
            self._wrote(step=True)
        return purged

    @property
    def behind(self) -> bool:
        """So much was deleted that it has to be moved from the log into the file before more is."""
        return self._checkpointer is not None and self._checkpointer.behind

    def _wrote(self, step: bool = False) -> None:
        """The checkpointer has work. Where the size is limited, so is the log: one that is too long is waited for."""
        if self._checkpointer is None:
            return
        self._checkpointer.wrote(step)
        if self.keep.limit and ledger_file.log_size(self.path) > self.keep.log:
            try:
                self._checkpoint()
            except LedgerError:  # what was written stays written; the next one tries again
                self._checkpointer.failures += 1

    def _checkpoint(self) -> None:
        if self._checkpointer is not None:
            with self._checkpointer.lock, self._read() as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def holding(self, latest: float = math.inf) -> Holding:
        """What retention has to know of the file. `latest`: unix seconds; instants beyond are not believed."""
        with self._read() as db:
            return purge.holding(db, latest)._replace(spare=self.reserve.held, written=self._written)

    def make_room(self) -> None:
        """The disk is full: let go of the reserve, and move the log into the file, so that it can begin anew."""
        self.reserve.release()
        self._checkpoint()

    def snapshot(self, closed_since: float) -> Snapshot:
        """What a start needs; of closed parts, those since `closed_since` (unix seconds)."""
        with self._read() as db:
            return lookup.snapshot(db, closed_since)

    def recall(self, frame: int) -> Stored | None:
        """A frame that is no longer in memory, without the bodies of its answers."""
        with self._read() as db:
            return lookup.frame(db, frame)

    def gone(self, frame: int) -> bool:
        """Whether there was a frame, or a skip, with this row id that was deleted."""
        with self._read() as db:
            return lookup.gone(db, frame)

    def recall_boot(self, camera: str, name: str) -> StoredBoot | None:
        with self._read() as db:
            return lookup.boot(db, camera, name)

    def last_seq(self) -> int:
        """The seq of the newest publication ever, 0 for none."""
        with self._read() as db:
            return lookup.last_seq(db)

    def oldest_seq(self) -> int:
        """The first seq that can be caught up with; one more than the last where nothing is kept."""
        with self._read() as db:
            return lookup.oldest_seq(db)

    def topics(self, prefixes: Iterable[str]) -> dict[int, str]:
        """Number -> name of the topics that start with any of `prefixes`; all of them without any."""
        starts = tuple(prefixes) or ("",)
        with self._read() as db:
            return {
                topic: name for topic, name in db.execute("SELECT topic, name FROM topics") if name.startswith(starts)
            }

    def page(self, after: int, topics: dict[int, str], limit: int, size: int) -> tuple[list[Entry], int]:
        """Publications after `after`, oldest first, as they went out: at most `limit`, and one when it alone exceeds
        `size` bytes. Looks at `lookup.SCAN` at most; returns the last seq that was looked at as well."""
        with self._read() as db:
            return lookup.page(db, after, topics, limit, size)

    def size(self) -> int:
        """Bytes on the disk, the log included."""
        return ledger_file.size(self.path)

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            raise LedgerError(f"{self.path}: the ledger is not open")
        with ledger_file.translated(self.path):
            yield self._db

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """A write that is refused waits for the log to be moved."""
        try:
            yield
        except LedgerFull:
            if self._checkpointer is not None:
                self._checkpointer.wrote()
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._read() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
