"""What a ledger holds of a chaos run, frame by frame. Reads the file, and changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from broker.ledger import LedgerError
from broker.report import report
from broker.rows import SEQ_BITS, SEQ_LIMIT
from broker.wire import Key
from ops.chaos.answer import Answer, score

_KEY: Final = f"b.camera, b.name, f.frame & {SEQ_LIMIT - 1}"
_OF: Final = f"JOIN boots b ON b.boot = f.frame >> {SEQ_BITS}"


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
    """All frames and boots of a ledger. `gone`: by boot, first and last seq of runs of frames that were deleted;
    `deleted`: (what, name, kind) -> how many; `told`: what `broker report` says. `purged`: the keys in `frames`
    that are not in the ledger any more."""

    frames: dict[Key, Row] = field(default_factory=dict)
    boots: dict[tuple[str, str], BootState] = field(default_factory=dict)
    gone: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    deleted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    told: Mapping[str, Any] = field(default_factory=dict)
    purged: set[Key] = field(default_factory=set)


def read(path: Path) -> Rows:
    """All rows of a ledger that nobody writes. Raises LedgerError."""
    rows = Rows()
    with _opened(path) as db:
        db.execute("BEGIN")
        for *key, outcome in db.execute(f"SELECT {_KEY}, f.outcome FROM frames f {_OF}"):
            rows.frames[Key(*key)] = Row(outcome)
        answers = f"SELECT {_KEY}, f.model, f.status, f.reason, f.tries, f.body FROM results f {_OF}"
        for camera, boot, seq, model, status, reason, tries, body in db.execute(answers):
            answer = Answer(status, reason, tries, score(status, _body(body)))
            rows.frames[Key(camera, boot, seq)].answers[model] = answer
        published = f"SELECT {_KEY}, count(*) FROM published f {_OF} WHERE f.frame IS NOT NULL GROUP BY f.frame"
        for *key, count in db.execute(published):
            rows.frames[Key(*key)].published = count
        for camera, boot, state, last_seq in db.execute("SELECT camera, name, state, last_seq FROM boots"):
            rows.boots[camera, boot] = BootState(state, last_seq)
        runs = "SELECT camera, name, first, last FROM gone JOIN boots USING (boot)"
        for camera, boot, first, last in db.execute(runs):
            rows.gone.setdefault((camera, boot), []).append((first, last))
        for *what, count in db.execute("SELECT what, name, kind, count FROM deleted"):
            rows.deleted[tuple(what)] = count
    rows.told = report(path)
    return rows


def unfinished(path: Path) -> tuple[int, int, int]:
    """Frames that are not joined, boots that are open, and the seq of the newest publication. Raises LedgerError."""
    with _opened(path) as db:
        found: tuple[int, int, int] = db.execute(
            "SELECT (SELECT count(*) FROM frames WHERE outcome IS NULL),"
            " (SELECT count(*) FROM boots WHERE state = 'open'),"
            " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'published'), 0)"
        ).fetchone()
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            yield db
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error


def _body(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.msgpack.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
