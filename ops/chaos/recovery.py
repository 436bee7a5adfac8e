"""How long frames took to settle, and how long the line needed to recover from each fault. Pure.

All instants are monotonic seconds of one machine.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from broker.wire import Key
from ops.chaos.heard import Heard
from ops.chaos.rows import Rows
from ops.chaos.schedule import NET, Kind
from ops.chaos.told import Told

#: Seconds after a process is back in which what was still under way to the cameras may arrive: no new answer yet. A
#: cold Python needs several times as long.
STRAGGLERS: Final = 0.05
_OUTAGES: Final = (
    Kind.BROKER_KILL,
    Kind.BROKER_STOP,
    Kind.BROKER_RESTART,
    Kind.JOIN_KILL,
    Kind.JOIN_STOP,
    Kind.JOIN_RESTART,
    Kind.DISK_FULL,
    *NET,
)
_OF_WORKERS: Final = (Kind.WORKER_KILL, Kind.WORKER_STOP, Kind.WORKER_STUCK, Kind.WORKER_RESTART)


class Struck(Struct, frozen=True, kw_only=True):
    """A fault as it was carried out: `at`, and `back_at`, when its process was started or continued, or the disk or the
    network was put right. `model`: that of the worker."""

    kind: Kind
    victim: str
    at: float
    back_at: float
    model: str = ""
    serving: bool = True


class Spread(Struct, frozen=True, kw_only=True):
    """How many were measured, and their quantiles (nearest rank) in seconds; None where there was none."""

    count: int = 0
    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class Life(NamedTuple):
    """A settled frame, from capture to the camera's knowledge."""

    key: Key
    captured_at: float
    settled_at: float


class Times(Struct, frozen=True, kw_only=True):
    """Capture to settled: of all frames, and of those whose life meets no outage of broker, join, disk or network.
    Poison pictures are apart: each waits for three deaths. `recovery`: by kind of fault, in a run of one kind at a time
    the kind's own; of frames of dead workers `service` seconds, one call of the model, are taken off. `around`: by kind
    of network fault, the frames of cameras on the near side of it that were under way or captured while it lasted: from
    its beginning, or their capture, to the consumer; `again`: those of them that a worker had to do again, and those of
    the cameras beyond it that were under way when it began."""

    settled: Spread
    clear: Spread
    poison: Spread
    recovery: dict[str, Spread]
    around: dict[str, Spread] = {}
    again: dict[str, Spread] = {}


def times(
    told: Sequence[Told],
    rows: Rows,
    heard: Heard,
    struck: Sequence[Struck],
    *,
    since: float,
    service: float,
    far: Collection[str] = (),
) -> Times:
    """All figures of a run, of frames captured from `since` on; `service`: seconds of one call of a model; `far`: the
    cameras beyond the network's faults."""
    lives = sorted(_lives(told, since, poison=False), key=lambda life: life.settled_at)
    settled_at = [life.settled_at for life in lives]
    outages = [(one.at, _first_after(settled_at, one.back_at)) for one in struck if one.kind in _OUTAGES]
    recovery: dict[str, list[float]] = {}
    for one in struck:
        seconds = _recovery(one, lives, settled_at, rows, service)
        if seconds is not None:
            recovery.setdefault(one.kind.value, []).append(seconds)
    around = list(_around(told, rows, heard, struck, far))
    return Times(
        settled=spread(_seconds(life) for life in lives),
        clear=spread(_seconds(life) for life in lives if not _overlaps(life, outages)),
        poison=spread(_seconds(life) for life in _lives(told, since, poison=True)),
        recovery={kind: spread(recovery[kind]) for kind in sorted(recovery)},
        around=_by_kind((kind, seconds) for kind, seconds, _ in around),
        again=_by_kind((kind, seconds) for kind, seconds, again in around if again),
    )


def _around(
    told: Iterable[Told], rows: Rows, heard: Heard, struck: Iterable[Struck], far: Collection[str]
) -> Iterator[tuple[Kind, float, bool]]:
    """Of each fault of the network, the frames whose way it crossed: (kind, seconds, whether it was tried again)."""
    sent = [(one.key(seq), frame) for one in told for seq, frame in one.sent.items()]
    ended = heard.at.keys() & rows.frames.keys()
    lives = [(key, frame.at, heard.at[key]) for key, frame in sent if key in ended and not frame.poison]
    for one in struck:
        for key, captured_at, received_at in lives if one.kind in NET else ():
            again = any(answer.tries > 1 for answer in rows.frames[key].answers.values())
            until = (one.at if again else -math.inf) if key.camera in far else one.back_at
            if captured_at < until and received_at > one.at:
                yield one.kind, received_at - max(captured_at, one.at), again


def _by_kind(measured: Iterable[tuple[Kind, float]]) -> dict[str, Spread]:
    found: dict[str, list[float]] = {}
    for kind, seconds in measured:
        found.setdefault(kind.value, []).append(seconds)
    return {kind: spread(found[kind]) for kind in sorted(found)}


def spread(seconds: Iterable[float]) -> Spread:
    """Quantiles, each one that was measured."""
    ordered = sorted(seconds)
    if not ordered:
        return Spread()
    p50, p99 = (ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.99))
    return Spread(count=len(ordered), p50=round(p50, 4), p99=round(p99, 4), max=round(ordered[-1], 4))


def _lives(told: Iterable[Told], since: float, *, poison: bool) -> Iterator[Life]:
    for one in told:
        for seq, end in one.settled.items():
            sent = one.sent[seq]
            if bool(sent.poison) == poison and sent.at >= since and end.outcome in ("complete", "incomplete"):
                yield Life(one.key(seq), sent.at, end.at)


def _seconds(life: Life) -> float:
    return life.settled_at - life.captured_at


def _first_after(settled_at: Sequence[float], instant: float) -> float:
    """When the first frame settled after `instant`; never: infinity."""
    index = bisect_right(settled_at, instant + STRAGGLERS)
    return settled_at[index] if index < len(settled_at) else math.inf


def _overlaps(life: Life, outages: Iterable[tuple[float, float]]) -> bool:
    return any(life.captured_at <= end and life.settled_at >= begin for begin, end in outages)


def _recovery(
    one: Struck, lives: Sequence[Life], settled_at: Sequence[float], rows: Rows, service: float
) -> float | None:
    """Seconds from the fault until the line was well again; None where it had nothing to recover from.

    A worker: until the frames that it held (tried again, and under way when it was struck) are settled. Broker, join:
    from their death, or from the end of what held them up, to the first newly settled frame.
    """
    if one.kind in _OF_WORKERS:
        held = [
            life.settled_at - one.at - service
            for life in lives[bisect_right(settled_at, one.at) :]
            if life.captured_at < one.at and _tried_again(rows, life.key, one.model)
        ]
        return max(held, default=None)
    if one.kind not in _OUTAGES or one.kind in NET:
        return None
    first = _first_after(settled_at, one.back_at)
    began = one.at if one.kind.value.endswith(("-kill", "-restart")) else one.back_at
    return first - began if math.isfinite(first) else None


def _tried_again(rows: Rows, key: Key, model: str) -> bool:
    row = rows.frames.get(key)
    answer = row.answers.get(model) if row is not None else None
    return answer is not None and answer.tries > 1


def by_kind(struck: Iterable[Struck]) -> Mapping[str, int]:
    """How often each kind struck."""
    found: dict[str, int] = {}
    for one in struck:
        found[one.kind.value] = found.get(one.kind.value, 0) + 1
    return dict(sorted(found.items()))
