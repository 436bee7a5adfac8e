"""What the join publishes: the bodies of joined frames and parts, composed without decoding the models' answers again.

A frame's body is `head` + `encode_results`: its last key is `results`, whose value is put together byte for byte from
the encoded answers. So the ledger stores each answer once, and catch-up gives back exactly what went out live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import msgpack
import msgspec
from msgspec import Struct

from broker.part import Completeness, MissingCamera
from broker.wire import Key, Outcome, Policy, Status, Verdict

#: Reason of a model whose answer could not be read: it failed, whatever its worker said.
INVALID: Final = "result_invalid"
#: Keys that the join adds to each answer; an answer that brings its own is not readable without doubt.
RESERVED: Final = frozenset({"status", "reason", "tries"})
#: Maps and lists inside one another in an answer, at most: what is published around it must stay readable by everyone.
DEPTH: Final = 16


class Answer(NamedTuple):
    """The terminal status of one model for one frame; `body` is its encoded result map, or empty."""

    status: Status
    reason: str = ""
    tries: int = 0
    body: bytes = b""


class Missing(Struct, frozen=True, kw_only=True, gc=False):
    """A model that did not look, and why."""

    model: str
    status: Status
    reason: str


class JoinedFrame(Struct, frozen=True, kw_only=True, gc=False):
    """Body on topic `frame/<camera>/`. `seconds`: from EXPECT to publication; `published_at`: unix seconds, a label."""

    camera: str
    boot: str
    seq: int
    station: str
    part: str | None
    policy: Policy
    outcome: Completeness
    verdict: Verdict
    missing: list[Missing]
    seconds: float
    published_at: float
    results: msgspec.Raw


class JoinedPart(Struct, frozen=True, kw_only=True, gc=False):
    """Body on topic `part/<station>/`."""

    station: str
    part: str
    outcome: Completeness
    verdict: Verdict
    reason: Literal["joined", "deadline", "surplus"]
    frames: list[Key]
    missing: list[MissingCamera]
    published_at: float


_ENCODER: Final = msgspec.msgpack.Encoder()
_READER: Final = msgspec.msgpack.Decoder(dict[str, Any])


class _Found(Struct, frozen=True, forbid_unknown_fields=True, rename={"number": "class"}):
    number: int
    name: str
    score: float
    box: list[float] | None = None
    area: float = 0.0
    polygons: list[list[float]] | None = None


class _Usual(Struct, frozen=True, forbid_unknown_fields=True):
    """What our own workers answer: its shape needs no closer look, and to see that costs a tenth of one."""

    task: str
    detections: list[_Found] | None = None
    classes: list[_Found] | None = None
    timings: dict[str, float] | None = None
    version: str = ""
    random: bool = False


_USUAL: Final = msgspec.msgpack.Decoder(_Usual)
_CONTAINERS: Final[frozenset[type]] = frozenset({dict, list})
_PLAIN: Final[frozenset[type]] = _CONTAINERS | {type(None), bool, int, float, str, bytes}
_TEXT: Final[frozenset[type]] = frozenset({str})


def read(body: bytes) -> Mapping[str, Any] | None:
    """An answer's decoded map, whatever it says; None where it cannot be read. Empty bytes are an empty map.

    Readable is what every msgpack library can read: text as keys, no extension types, and at most `DEPTH`
    levels.
    """
    if not body:
        return {}
    try:
        answer: dict[str, Any] = _READER.decode(body)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        # msgspec has its own errors, but lets UnicodeDecodeError, and TypeError for a map as a key, through.
        return None
    return answer if RESERVED.isdisjoint(answer) and (is_usual(body) or _is_plain(answer, body)) else None


def is_usual(body: bytes) -> bool:
    """An answer as our own workers send it: everyone can read that, and to see so costs a tenth of a closer look."""
    try:
        _USUAL.decode(body)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return False
    return True


def _is_plain(answer: dict[str, Any], body: bytes) -> bool:
    try:
        msgpack.unpackb(body)  # which also sees what a second entry of the same name hides in `answer`
    except Exception:  # its errors have no common class below; whatever it is, others could not read this either
        return False
    level: list[Any] = [answer]
    for _ in range(DEPTH):
        inner: list[Any] = []
        for one in level:
            if type(one) is dict and not _TEXT.issuperset(map(type, one)):
                return False
            children = one.values() if type(one) is dict else one
            types = set(map(type, children))
            if not types <= _PLAIN:
                return False
            if not types.isdisjoint(_CONTAINERS):
                inner += [child for child in children if type(child) in _CONTAINERS]
        if not inner:
            return True
        level = inner
    return False


def encode_results(answers: Iterable[tuple[str, Answer]], count: int) -> bytes:
    """The map model -> {..., status, reason, tries} of `count` models; `answers` in the order of the models' names."""
    pieces = [_map_header(count)]
    for model, (status, reason, tries, body) in answers:
        entries, start = _split(body)
        pieces += (_text(model), _map_header(entries + len(RESERVED)), body[start:], _ending(status, reason, tries))
    return b"".join(pieces)


def _split(body: bytes) -> tuple[int, int]:
    """How many entries the encoded map has, and where the first one starts."""
    if not body:
        return 0, 0
    first = body[0]
    if 0x80 <= first <= 0x8F:
        return first & 0x0F, 1
    size = 2 if first == 0xDE else 4
    return int.from_bytes(body[1 : 1 + size]), 1 + size


def readable(outcome: Outcome) -> Answer:
    """The answer as it can be published: a body that cannot be read is no answer, whatever its worker said."""
    if not outcome.body or read(outcome.body) is not None:
        return Answer(outcome.status, outcome.reason, outcome.tries, outcome.body)
    return Answer("failed", INVALID, outcome.tries)


@lru_cache(maxsize=64)
def _map_header(entries: int) -> bytes:
    if entries < 16:
        return bytes([0x80 | entries])
    if entries < 1 << 16:
        return b"\xde" + entries.to_bytes(2)
    return b"\xdf" + entries.to_bytes(4)


@lru_cache(maxsize=1024)
def _text(text: str) -> bytes:
    return _ENCODER.encode(text)


@lru_cache(maxsize=1024)
def _ending(status: Status, reason: str, tries: int) -> bytes:
    return b"".join(_ENCODER.encode(item) for item in ("status", status, "reason", reason, "tries", tries))
