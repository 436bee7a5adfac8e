"""Which answers can be published: what everyone can read, whatever stands around it then."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest

from broker.joined import DEPTH, Answer, encode_results, is_usual, read

DETECTION = {"class": 0, "name": "dent", "score": 0.5, "box": [1.0, 2, 3, 4], "area": 4}
USUAL: list[dict[str, Any]] = [
    {},
    {"task": "detect", "detections": [DETECTION] * 3, "timings": {"wait": 0.001, "batch": 2}},
    {"task": "segment", "detections": [DETECTION | {"polygons": [[1, 2, 3.5, 4]]}], "random": True},
    {"task": "classify", "classes": [{"class": 3, "name": "ok", "score": 0.9}]},
]
OPEN_ENDED: list[dict[str, Any]] = [
    {"task": "measure", "widths": {"left": [1, 2.5, None, True]}, "mask": b"\x00\x01"},
    {"task": "detect", "detections": [DETECTION | {"why": {"heat": [[0.5]]}}]},
]


def nested(levels: int) -> bytes:
    """An answer of so many levels, its own map included."""
    return b"\x81\xa1a" + b"\x91" * (levels - 1) + b"\xc0"


@pytest.mark.parametrize("answer", USUAL + OPEN_ENDED)
def test_an_answer_is_read_and_published_as_it_is(answer: dict[str, Any]) -> None:
    body = msgspec.msgpack.encode(answer)
    assert read(body) == answer
    published = msgpack.unpackb(encode_results([("model", Answer("ok", "", 1, body))], 1))
    assert published == {"model": answer | {"status": "ok", "reason": "", "tries": 1}}


@pytest.mark.parametrize("answer", USUAL[1:])
def test_what_our_workers_answer_needs_no_closer_look(answer: dict[str, Any]) -> None:
    told = {"version": "0123456789ab", "timings": {"wait": 0.001, "batch": 2}}
    assert is_usual(msgspec.msgpack.encode(answer | told))


def test_levels_are_counted() -> None:
    assert read(nested(DEPTH)) is not None
    assert read(nested(DEPTH + 1)) is None


def test_an_answer_as_deep_as_can_be_decoded_is_not_published() -> None:
    # With results and frame around it nobody could read it any more: a part would have no verdict.
    deepest = next(nested(levels) for levels in range(2000, 0, -1) if decodable(nested(levels)))
    assert not decodable(b"\x91" * 3 + deepest)
    assert read(deepest) is None


@pytest.mark.parametrize(
    "inner",
    [
        b"\x81\x01\x02",
        b"\x81\x91\x01\x02",
        b"\x81\xc4\x01a\x02",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xd4\x80\x00",
        b"\xd4\x05\x00",
    ],
    ids=["number as key", "list as key", "bytes as key", "timestamp", "negative extension", "extension"],
)
def test_what_other_libraries_cannot_read_is_not_published(inner: bytes) -> None:
    assert read(b"\x81\xa1a" + inner) is None


def test_a_second_entry_of_a_name_hides_nothing() -> None:
    assert read(b"\x82\xa1a\x81\x01\x02\xa1a\xc0") is None


def decodable(body: bytes) -> bool:
    try:
        msgspec.msgpack.decode(body)
    except RecursionError:
        return False
    return True
