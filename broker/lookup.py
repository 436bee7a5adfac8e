"""What the ledger is asked: rows into what the join and its consumers take. Reads only."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from broker.joined import Answer, encode_results
from broker.ledger_file import one
from broker.rows import (
    SEQ_BITS,
    SEQ_LIMIT,
    BootRow,
    FrameRow,
    PlanRow,
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

_FRAME: Final = "frame, plan, part, part_row, accepted_at, f.outcome, f.verdict"
_KEY: Final = f"b.camera, b.name, f.frame & {SEQ_LIMIT - 1}"
_KEYED: Final = f"{_KEY}, {_FRAME} FROM frames f JOIN boots b ON b.boot = f.frame >> {SEQ_BITS}"


def snapshot(db: sqlite3.Connection, closed_since: float) -> Snapshot:
    """What a start needs; of closed parts, those since `closed_since` (unix seconds)."""
    return Snapshot(
        last_seq=last_seq(db),
        last_boot=one(db, "SELECT coalesce(max(boot), 0) FROM boots"),
        last_part=one(db, "SELECT coalesce(max(part), 0) FROM parts"),
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


def frame(db: sqlite3.Connection, number: int) -> Stored | None:
    """A frame without the bodies of its answers."""
    found = db.execute(f"SELECT {_KEYED} WHERE frame = ?", (number,)).fetchone()
    if found is None:
        return None
    answers = db.execute("SELECT model, status, reason, tries FROM results WHERE frame = ?", (number,))
    suspects = db.execute("SELECT model, count FROM suspects WHERE frame = ?", (number,))
    return _stored(found, {model: Answer(*rest) for model, *rest in answers}, dict(suspects.fetchall()))


def gone(db: sqlite3.Connection, number: int) -> bool:
    """Whether the frame (or skip) with this row id was deleted."""
    found = db.execute(
        "SELECT last FROM gone WHERE boot = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        (number >> SEQ_BITS, number & (SEQ_LIMIT - 1)),
    ).fetchone()
    return found is not None and number & (SEQ_LIMIT - 1) <= found[0]


def boot(db: sqlite3.Connection, camera: str, name: str) -> StoredBoot | None:
    """A start of a camera by its random id."""
    found = db.execute("SELECT * FROM boots WHERE camera = ? AND name = ?", (camera, name)).fetchone()
    return None if found is None else StoredBoot(BootRow(*found), _highest(db, found[0]))


def last_seq(db: sqlite3.Connection) -> int:
    """The seq of the newest publication ever, 0 for none."""
    found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'published'").fetchone()
    return 0 if found is None else int(found[0])


def oldest_seq(db: sqlite3.Connection) -> int:
    """The first seq that is kept; one more than the last where none is."""
    first: int | None = one(db, "SELECT min(seq) FROM published")
    return last_seq(db) + 1 if first is None else first


def page(db: sqlite3.Connection, after: int, topics: dict[int, str], limit: int, size: int) -> tuple[list[Entry], int]:
    """`Ledger.page`."""
    numbers = ",".join(map(str, topics))
    entries: list[Entry] = []
    query = (
        "SELECT seq, previous, topic, frame, head FROM published"
        f" WHERE seq > ? AND seq <= ? AND topic IN ({numbers}) ORDER BY seq LIMIT ?"
    )
    for seq, previous, topic, number, head in db.execute(query, (after, after + SCAN, limit)):
        body = head if number is None else head + _encoded_results(db, number)
        size -= len(body)
        if size < 0 and entries:
            return entries, entries[-1].seq
        entries.append(Entry(topic=topics[topic], seq=seq, previous=previous, body=body))
    return entries, entries[-1].seq if len(entries) == limit else after + SCAN


def _highest(db: sqlite3.Connection, boot: int) -> int:
    first = boot << SEQ_BITS
    among = "WHERE frame BETWEEN ? AND ?"
    kept: list[int] = [
        one(db, f"SELECT coalesce(max(frame) - ?, -1) FROM {table} {among}", first, first, first + SEQ_LIMIT - 1)
        for table in ("frames", "skips")
    ]
    deleted: int = one(db, "SELECT coalesce(max(last), -1) FROM gone WHERE boot = ?", boot)
    return max(*kept, deleted)


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
