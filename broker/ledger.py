"""The ledger: the SQLite file in which every accepted frame, every terminal status and every publication is a row.

`commit` writes one `Rows` in one transaction (WAL, synchronous=FULL): once it has returned, the rows survive a power
cut. One process writes; any number may read meanwhile (`report`).
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from broker import schema
from broker.joined import Answer, encode_results
from broker.rows import (
    SEQ_BITS,
    SEQ_LIMIT,
    BootRow,
    FrameRow,
    PlanRow,
    Rows,
    Snapshot,
    Stored,
    StoredBoot,
    StoredPart,
    TopicRow,
)
from broker.wire import Entry, Key

#: Line files that a start loads, the newest.
LINES: Final = 8
#: Publications that one page of catch-up looks at, whatever it finds.
SCAN: Final = 4096
#: Seconds to wait where another program holds the file.
BUSY: Final = 0.1

_FRAME: Final = "frame, plan, part, part_row, accepted_at, f.outcome, f.verdict"
_KEY: Final = f"b.camera, b.name, f.frame & {SEQ_LIMIT - 1}"
_KEYED: Final = f"{_KEY}, {_FRAME} FROM frames f JOIN boots b ON b.boot = f.frame >> {SEQ_BITS}"


class LedgerError(Exception):
    """The ledger cannot be opened, read or written; what was not committed is not in it."""


class Ledger:
    """The join's way to its file. Belongs to the thread that opened it; every method raises LedgerError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger_id = ""
        self._db: sqlite3.Connection | None = None
        self._lock: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Take the ledger for this process alone; a new file gets its tables and a random `ledger_id`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(self.path)
            with _translated(self.path):
                self._db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
                _prepare(self._db, self.path)
                self.ledger_id = _one(self._db, "SELECT value FROM meta WHERE name = 'ledger_id'")
        except OSError as error:
            self.close()
            raise LedgerError(f"{self.path}: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for connection in (self._db, self._lock):
            if connection is not None:
                connection.close()
        self._db = self._lock = None

    def commit(self, rows: Rows) -> list[str]:
        """Write all of `rows`, or nothing. Returns the models of the late results that were not filed before."""
        filed: list[str] = []
        if not any(getattr(rows, name) for name in (*schema.WRITES, "late_results")):
            return filed
        with self._read() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                for name, statement in schema.WRITES.items():
                    if values := getattr(rows, name):
                        db.executemany(statement, values)
                for late in rows.late_results:
                    if db.execute(schema.FILE_LATE, late).rowcount:
                        filed.append(late.model)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return filed

    def snapshot(self, closed_since: float) -> Snapshot:
        """What a start needs; of closed parts, those since `closed_since` (unix seconds)."""
        with self._read() as db:
            return Snapshot(
                last_seq=_last_seq(db),
                last_boot=_one(db, "SELECT coalesce(max(boot), 0) FROM boots"),
                last_part=_one(db, "SELECT coalesce(max(part), 0) FROM parts"),
                lines=_lines(db),
                plans=[PlanRow(*row) for row in db.execute("SELECT * FROM plans")],
                topics=[TopicRow(*row) for row in db.execute("SELECT * FROM topics")],
                boots=[
                    StoredBoot(BootRow(*row), _highest(db, row[0]))
                    for row in db.execute("SELECT * FROM boots WHERE state = 'open'").fetchall()
                ],
                frames=_frames(db, "f.outcome IS NULL"),
                parts=_parts(db, closed_since),
            )

    def recall(self, frame: int) -> Stored | None:
        """A frame that is no longer in memory, without the bodies of its answers."""
        with self._read() as db:
            found = db.execute(f"SELECT {_KEYED} WHERE frame = ?", (frame,)).fetchone()
            if found is None:
                return None
            answers = db.execute("SELECT model, status, reason, tries FROM results WHERE frame = ?", (frame,))
            suspects = db.execute("SELECT model, count FROM suspects WHERE frame = ?", (frame,))
            return _stored(found, {model: Answer(*rest) for model, *rest in answers}, dict(suspects.fetchall()))

    def recall_boot(self, camera: str, name: str) -> StoredBoot | None:
        with self._read() as db:
            found = db.execute("SELECT * FROM boots WHERE camera = ? AND name = ?", (camera, name)).fetchone()
            return None if found is None else StoredBoot(BootRow(*found), _highest(db, found[0]))

    def last_seq(self) -> int:
        """The seq of the newest publication ever, 0 for none."""
        with self._read() as db:
            return _last_seq(db)

    def oldest_seq(self) -> int:
        """The first seq that can be caught up with; one more than the last where nothing is kept."""
        with self._read() as db:
            first: int | None = _one(db, "SELECT min(seq) FROM published")
            return _last_seq(db) + 1 if first is None else first

    def topics(self, prefixes: Iterable[str]) -> dict[int, str]:
        """Number -> name of the topics that start with any of `prefixes`; all of them without any."""
        starts = tuple(prefixes) or ("",)
        with self._read() as db:
            return {
                topic: name for topic, name in db.execute("SELECT topic, name FROM topics") if name.startswith(starts)
            }

    def page(self, after: int, topics: dict[int, str], limit: int, size: int) -> tuple[list[Entry], int]:
        """Publications after `after`, oldest first, as they went out: at most `limit`, and one when it alone exceeds
        `size` bytes. Looks at `SCAN` at most; returns the last seq that was looked at as well."""
        numbers = ",".join(map(str, topics))
        entries: list[Entry] = []
        with self._read() as db:
            query = (
                "SELECT seq, previous, topic, frame, head FROM published"
                f" WHERE seq > ? AND seq <= ? AND topic IN ({numbers}) ORDER BY seq LIMIT ?"
            )
            for seq, previous, topic, frame, head in db.execute(query, (after, after + SCAN, limit)):
                body = head if frame is None else head + _encoded_results(db, frame)
                size -= len(body)
                if size < 0 and entries:
                    return entries, entries[-1].seq
                entries.append(Entry(topic=topics[topic], seq=seq, previous=previous, body=body))
        return entries, entries[-1].seq if len(entries) == limit else after + SCAN

    def size(self) -> int:
        """Bytes on the disk."""
        with contextlib.suppress(OSError):
            return sum(file.stat().st_size for file in (self.path, Path(f"{self.path}-wal")) if file.exists())
        return 0

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            raise LedgerError(f"{self.path}: the ledger is not open")
        with _translated(self.path):
            yield self._db


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error


def _take_lock(path: Path) -> sqlite3.Connection:
    """A lock that ends with the process, on every system: an open transaction on a database beside the ledger."""
    lock = sqlite3.connect(f"{path}.lock", timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        raise LedgerError(f"{path}: another join is running on this ledger ({error})") from error
    return lock


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = _one(db, "PRAGMA user_version")
    if version == 0 and _one(db, "SELECT count(*) FROM sqlite_master") == 0:
        db.executescript(schema.TABLES.replace("{ledger_id}", secrets.token_hex(8)))
    elif version != schema.VERSION:
        raise LedgerError(
            f"{path}: not a ledger of this version (schema {version}, {schema.VERSION} expected);"
            " move the file away or name another one in the line file"
        )
    if _one(db, "PRAGMA journal_mode = WAL") != "wal":
        raise LedgerError(f"{path}: this file system cannot hold a ledger (no write-ahead log); put it on a local disk")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA journal_size_limit = 67108864")
    db.execute("PRAGMA wal_autocheckpoint = 4000")


def _one(db: sqlite3.Connection, query: str, *values: Any) -> Any:
    return db.execute(query, values).fetchone()[0]


def _last_seq(db: sqlite3.Connection) -> int:
    found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'published'").fetchone()
    return 0 if found is None else int(found[0])


def _highest(db: sqlite3.Connection, boot: int) -> int:
    first = boot << SEQ_BITS
    found: int | None = _one(
        db, "SELECT max(frame) FROM frames WHERE frame BETWEEN ? AND ?", first, first + SEQ_LIMIT - 1
    )
    return -1 if found is None else found - first


def _lines(db: sqlite3.Connection) -> list[tuple[str, str]]:
    return db.execute(
        "SELECT digest, text FROM lines WHERE line IN (SELECT line FROM lines ORDER BY line DESC LIMIT ?)"
        " OR digest IN (SELECT digest FROM plans JOIN frames USING (plan) WHERE outcome IS NULL) ORDER BY line",
        (LINES,),
    ).fetchall()


def _stored(found: tuple[Any, ...], answers: dict[str, Answer], suspects: dict[str, int]) -> Stored:
    return Stored(Key(*found[:3]), FrameRow(*found[3:]), answers, suspects)


def _frames(db: sqlite3.Connection, where: str, *values: Any) -> list[Stored]:
    """The frames that the condition picks, with the bodies of their answers."""
    found = {
        row[3]: _stored(row, {}, {}) for row in db.execute(f"SELECT {_KEYED} WHERE {where} ORDER BY frame", values)
    }
    these = f"WHERE frame IN (SELECT frame FROM frames f WHERE {where})"
    for frame, model, *rest in db.execute(
        f"SELECT frame, model, status, reason, tries, body FROM results {these}", values
    ):
        found[frame].answers[model] = Answer(*rest)
    for frame, model, count in db.execute(f"SELECT frame, model, count FROM suspects {these}", values):
        found[frame].suspects[model] = count
    return list(found.values())


def _parts(db: sqlite3.Connection, closed_since: float) -> list[StoredPart]:
    columns = "part, station, name, closed_at"
    rows = db.execute(
        f"SELECT {columns} FROM parts WHERE closed_at IS NULL"
        f" UNION ALL SELECT {columns} FROM parts WHERE closed_at > ? ORDER BY part",
        (closed_since,),
    ).fetchall()
    return [StoredPart(row[0], row[1], row[2], row[3], _frames(db, "f.part_row = ?", row[0])) for row in rows]


def _encoded_results(db: sqlite3.Connection, frame: int) -> bytes:
    rows = db.execute("SELECT model, status, reason, tries, body FROM results WHERE frame = ? ORDER BY model", (frame,))
    answers = [(model, Answer(*rest)) for model, *rest in rows]
    return encode_results(answers, len(answers))
