"""What a ledger holds of a chaos run, frame by frame. Reads the file, and changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from broker.ledger import LedgerError
from broker.rows import SEQ_BITS, SEQ_LIMIT
from broker.wire import Key

_KEY: Final = f"b.camera, b.name, f.frame & {SEQ_LIMIT - 1}"
_OF: Final = f"JOIN boots b ON b.boot = f.frame >> {SEQ_BITS}"


class Answer(NamedTuple):
    """The terminal status of one model. `score`: of the one thing that the fake engine sees; None without an answer."""

    status: str
    reason: str
    tries: int
    score: float | None


@dataclass(slots=True)
class Row:
    """A frame: its outcome (None: not joined), its answers by model, and how often it was published."""

    outcome: str | None
    answers: dict[str, Answer] = field(default_factory=dict)
    published: int = 0


class BootState(NamedTuple):
    """How a start of a camera ended: `open`, `ended` or `cut`."""

    state: str
    last_seq: int


@dataclass(slots=True)
class Rows:
    """All frames and boots of a ledger; `last` is the seq of its newest publication, 0 for none."""

    frames: dict[Key, Row] = field(default_factory=dict)
    boots: dict[tuple[str, str], BootState] = field(default_factory=dict)
    last: int = 0


def read(path: Path) -> Rows:
    """All rows at one instant. Raises LedgerError."""
    rows = Rows()
    with _opened(path) as db:
        db.execute("BEGIN")
        for *key, outcome in db.execute(f"SELECT {_KEY}, f.outcome FROM frames f {_OF}"):
            rows.frames[Key(*key)] = Row(outcome)
        answers = f"SELECT {_KEY}, f.model, f.status, f.reason, f.tries, f.body FROM results f {_OF}"
        for camera, boot, seq, model, status, reason, tries, body in db.execute(answers):
            answer = Answer(status, reason, tries, _score(body) if status == "ok" else None)
            rows.frames[Key(camera, boot, seq)].answers[model] = answer
        published = f"SELECT {_KEY}, count(*) FROM published f {_OF} WHERE f.frame IS NOT NULL GROUP BY f.frame"
        for *key, count in db.execute(published):
            rows.frames[Key(*key)].published = count
        for camera, boot, state, last_seq in db.execute("SELECT camera, name, state, last_seq FROM boots"):
            rows.boots[camera, boot] = BootState(state, last_seq)
        rows.last = db.execute("SELECT coalesce(max(seq), 0) FROM published").fetchone()[0]
    return rows


def unfinished(path: Path) -> tuple[int, int, int]:
    """Frames that are not joined, boots that are open, and the seq of the newest publication. Raises LedgerError."""
    with _opened(path) as db:
        found: tuple[int, int, int] = db.execute(
            "SELECT (SELECT count(*) FROM frames WHERE outcome IS NULL),"
            " (SELECT count(*) FROM boots WHERE state = 'open'), (SELECT coalesce(max(seq), 0) FROM published)"
        ).fetchone()
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            yield db
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error


def _score(body: bytes) -> float | None:
    """The score in the answer of a fake engine; None for anything else."""
    try:
        detections = msgspec.msgpack.decode(body)["detections"]
        return float(detections[0]["score"]) if len(detections) == 1 else None
    except (msgspec.MsgspecError, KeyError, TypeError, IndexError, ValueError):
        return None
