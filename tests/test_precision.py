"""Average precision against an implementation of others (pycocotools), and intervals against published figures."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.bench.precision import Claim, Sight, average_precisions, matched, share

NAMES = ("scratch", "dent")
Box = tuple[float, float, float, float]
#: A picture: true boxes and claimed boxes with scores, each with its class.
Picture = tuple[list[tuple[str, Box]], list[tuple[str, Box, float]]]

corners = st.integers(0, 40)
boxes = st.builds(
    lambda x, y, w, h: (float(x), float(y), float(w), float(h)), corners, corners, *[st.integers(4, 30)] * 2
)
names = st.sampled_from(NAMES)
truths = st.lists(st.tuples(names, boxes), max_size=3)
pictures = st.lists(
    st.tuples(truths, st.lists(st.tuples(names, boxes, st.floats(0.01, 1)), max_size=5)), min_size=1, max_size=8
)


def overlap(one: Box, other: Box) -> float:
    """Of boxes x, y, width, height."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def sight(picture: Picture) -> Sight:
    truth, claimed = picture
    claims = [
        Claim(name, score, tuple(overlap(box, real) if name == kind else 0.0 for kind, real in truth))
        for name, box, score in sorted(claimed, key=lambda one: -one[2])
    ]
    return Sight(tuple(name for name, _ in truth), tuple(claims))


def by_pycocotools(seen: list[Picture]) -> dict[str, float]:
    """Its average precision at an overlap of 0.5, by class that occurs."""
    coco = pytest.importorskip(
        "pycocotools.coco", reason="pycocotools, an independent implementation, is not installed"
    )
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (truth, claimed) in enumerate(seen, start=1):
        for name, box in truth:
            entry = {"image_id": number, "category_id": NAMES.index(name) + 1, "bbox": list(box)}
            annotations.append(entry | {"id": len(annotations) + 1, "area": box[2] * box[3], "iscrowd": 0})
        for name, box, score in claimed:
            results.append(
                {"image_id": number, "category_id": NAMES.index(name) + 1, "bbox": list(box), "score": score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        real = coco.COCO()
        real.dataset = {
            "info": {},
            "images": [{"id": number + 1} for number in range(len(seen))],
            "categories": [{"id": index + 1, "name": name} for index, name in enumerate(NAMES)],
            "annotations": annotations,
        }
        real.createIndex()
        judge = evaluation.COCOeval(real, real.loadRes(results), "bbox")
        judge.params.iouThrs = np.array([0.5])
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, -1]
    present = {name for truth, _ in seen for name, _ in truth}
    return {name: float(precision[:, NAMES.index(name)].mean()) for name in NAMES if name in present}


@settings(max_examples=60, deadline=None)
@given(pictures)
def test_average_precision_is_that_of_pycocotools(seen: list[Picture]) -> None:
    scores = [score for _, claimed in seen for _, _, score in claimed]
    if not scores or len(set(scores)) < len(scores) or not any(truth for truth, _ in seen):
        return  # of equal scores either may come first
    assert average_precisions(map(sight, seen), NAMES) == pytest.approx(by_pycocotools(seen), abs=1e-9)


def test_a_class_without_claims_has_none_and_one_that_does_not_occur_is_left_out() -> None:
    assert average_precisions([Sight(("dent",), ())], NAMES) == {"dent": 0.0}


def test_a_defect_is_found_once() -> None:
    twice = Sight(("dent",), (Claim("dent", 0.9, (0.7,)), Claim("dent", 0.8, (0.9,))))
    assert matched(twice) == [0, None]
    assert average_precisions([twice], NAMES) == {"dent": 1.0}


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_the_published_ones(hits: int, count: int, low: float, high: float) -> None:
    found = share(hits, count)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_nothing_counted_says_nothing() -> None:
    assert (share(0, 0).low, share(0, 0).high) == (0.0, 1.0)
