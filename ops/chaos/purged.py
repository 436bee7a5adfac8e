"""Frames that the ledger has deleted for their age: on record with the consumer, and counted by the ledger. Pure.

A deleted frame is no lost one if the consumer has received it and the ledger says that its key is gone. It is judged by
what the consumer was told of it, like any other; and by camera, outcome and status the ledger must have deleted exactly
as many as the consumer has and the ledger has not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from broker.wire import Key
from ops.chaos.answer import Answer
from ops.chaos.finding import Finding
from ops.chaos.rows import Row, Rows


def completed(rows: Rows, outcomes: Mapping[Key, str], answers: Mapping[Key, Mapping[str, Answer]]) -> Rows:
    """`rows`, and those that were deleted, as the consumer has them: its `outcomes` and `answers`."""
    purged = {
        key: Row(outcome, dict(answers.get(key, {})), published=1)
        for key, outcome in outcomes.items()
        if key not in rows.frames and is_gone(key, rows)
    }
    return replace(rows, frames=purged | rows.frames, purged=set(purged))


def is_gone(key: Key, rows: Rows) -> bool:
    """Whether the ledger says that there was such a frame, and that it was deleted: alone, or with its boot."""
    boot = key[:2]
    if boot not in rows.boots:
        return _total(rows.deleted, "boots") > 0
    return any(first <= key.seq <= last for first, last in rows.gone.get(boot, ()))


def findings(rows: Rows, promised: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Where the account of the deleted and the sums of `broker report` are not what they should be; `rows` are
    completed. `promised`: boots of which the line answers for a frame."""
    gone = [(key, rows.frames[key]) for key in rows.purged]
    yield from _compared("frames", rows, Counter((key.camera, row.outcome or "") for key, row in gone))
    answers = [(model, answer) for _, row in gone for model, answer in row.answers.items()]
    yield from _compared("results", rows, Counter((model, answer.status) for model, answer in answers))
    again = sum(max(answer.tries - 1, 0) for _, answer in answers)  # of what was never tried: 0
    yield from _compared("requeued", rows, Counter({("", ""): again}))
    missing = sum(boot not in rows.boots for boot in promised)
    if missing > _total(rows.deleted, "boots"):
        yield Finding("wrong", "ledger", f"{missing} boots have no row, {_total(rows.deleted, 'boots')} were deleted")
    if rows.told:
        yield from _sums(rows, rows.told)


def _compared(what: str, rows: Rows, found: Counter[tuple[str, str]]) -> Iterator[Finding]:
    deleted = Counter({(name, kind): count for (each, name, kind), count in rows.deleted.items() if each == what})
    for which in sorted(deleted.keys() | found.keys()):
        if deleted[which] != found[which]:
            about = " ".join(filter(None, which)) or "all"
            text = f"{deleted[which]} {what} were deleted, {found[which]} of those that are gone are with the consumer"
            yield Finding("wrong", about, text)


def _sums(rows: Rows, told: Mapping[str, Any]) -> Iterator[Finding]:
    """What `broker report` says of all that ever was."""
    joined = sum(row.outcome is not None for row in rows.frames.values())
    expected = {
        "accepted": len(rows.frames),
        "joined": joined,
        "frames": len(rows.frames) - len(rows.purged),
        "published": joined,
        "duplicates": 0,
        "unpublished": 0,
    }
    for name, count in expected.items():
        if told[name] != count:
            yield Finding("wrong", "broker report", f"{name} is {told[name]}, and {count} by the frames")
    statuses = Counter((model, answer.status) for row in rows.frames.values() for model, answer in row.answers.items())
    summed = {(model, status): count for model, each in told["statuses"].items() for status, count in each.items()}
    if summed != dict(statuses):
        yield Finding("wrong", "broker report", f"statuses are {summed}, and {dict(statuses)} by the frames")


def _total(deleted: Mapping[tuple[str, str, str], int], what: str) -> int:
    return sum(count for (each, _, _), count in deleted.items() if each == what)
