"""`joined.read` and what follows from it: the bytes are a worker's answer, as they stand in DONE and RESULT."""

from __future__ import annotations

from typing import Any, Final, get_args

import msgpack
import msgspec

from broker.joined import RESERVED, Answer, encode_results, read
from broker.line import Rules
from broker.verdict import judge, judge_part
from broker.wire import Verdict
from tests.fuzz import corpus

RULES: Final = (
    None,
    Rules(ng=["scratch"]),
    Rules(required={"screw": 2, "scratch": 1}),
    Rules(ng=["scratch"], required={"screw": 1}, least_score=0.0, least_area=0.0),
)
VERDICTS: Final = get_args(Verdict)
#: What is added around an answer, at most, until a consumer has it: a body, `results`, a page.
_WRAPPED: Final = b"\x91" * 16


def seeds() -> list[bytes]:
    box = {"class": 0, "name": "scratch", "score": 0.82, "box": [1.0, 2.0, 30.5, 40.0], "area": 120.5}
    mask = box | {"polygons": [[1, 2, 30, 2, 30, 40], [5, 5, 9, 5, 9, 9]]}
    best = {"class": 3, "name": "screw", "score": 1}
    answers: list[dict[str, Any]] = [
        {},
        {"task": "detect", "detections": [box, box | {"name": "screw"}], "timings": {"wait": 0.001, "batch": 2}},
        {"task": "segment", "detections": [mask]},
        {"task": "classify", "classes": [best, best | {"name": "scratch"}], "random": True},
    ]
    return [*map(msgspec.msgpack.encode, answers), b"", *corpus.files("joined")]


def target(data: bytes) -> None:
    """An answer that is taken can be published, judged, and every msgpack library can read it."""
    body = read(data)
    if body is None:
        return
    results = encode_results([("model", Answer("ok", "", 1, data))], 1)
    published = msgspec.msgpack.decode(_WRAPPED + results)
    for _ in _WRAPPED:
        published = published[0]
    assert published["model"].keys() == body.keys() | RESERVED
    msgpack.unpackb(results)
    for rules in RULES:
        assert judge(rules, {"model": body, "other": None}, []) in VERDICTS
        assert judge(rules, {"model": body}, ["model"]) in VERDICTS
        assert judge_part(rules, [({"model": body}, ["model"])] * 2, []) in VERDICTS
