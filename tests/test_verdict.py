"""Verdicts: fail-safe in every direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from broker.line import Rules
from broker.verdict import judge, judge_part

NG = Rules(ng=["scratch"], least_score=0.5, least_area=10.0)
COUNTED = Rules(ng=["scratch"], least_score=0.5, required={"screw": 2})


def detect(*found: tuple[str, float, float], **extra: Any) -> dict[str, Any]:
    detections = [
        {"class": 0, "name": name, "score": score, "box": [0, 0, 1, 1], "area": area} for name, score, area in found
    ]
    return {"task": "detect", "detections": detections, **extra}


def classify(*classes: tuple[str, float]) -> dict[str, Any]:
    return {"task": "classify", "classes": [{"class": 0, "name": name, "score": score} for name, score in classes]}


SCRATCH = detect(("scratch", 0.9, 100.0))
SCREWS = detect(("screw", 0.9, 1.0), ("screw", 0.9, 1.0))
NOTHING = detect()


def test_without_rules_nothing_is_said() -> None:
    assert judge(None, {"a": SCRATCH}, ["a"]) == "none"
    assert judge(Rules(), {"a": NOTHING}, ["a"]) == "none"
    assert judge_part(None, [({"a": NOTHING}, ["a"])], []) == "none"


def test_ok_needs_every_required_model() -> None:
    assert judge(NG, {"a": NOTHING, "b": NOTHING}, ["a", "b"]) == "ok"
    assert judge(NG, {"a": NOTHING, "b": None}, ["a", "b"]) == "incomplete"
    assert judge(NG, {"a": NOTHING}, ["a", "b"]) == "incomplete"
    assert judge(NG, {"a": NOTHING, "b": None}, ["a"]) == "ok"


def test_nobody_looked_is_never_ok() -> None:
    assert judge(NG, {}, []) == "incomplete"
    assert judge(NG, {"a": None}, []) == "incomplete"
    assert judge(NG, {"a": NOTHING}, []) == "ok"


def test_ng_class_is_ng_even_when_models_are_missing() -> None:
    assert judge(NG, {"a": SCRATCH, "b": None}, ["a", "b"]) == "ng"
    assert judge(NG, {"a": NOTHING, "b": SCRATCH}, ["a"]) == "ng"


@pytest.mark.parametrize(
    ("score", "area", "verdict"),
    [(0.5, 10.0, "ng"), (0.49, 10.0, "ok"), (0.5, 9.9, "ok"), (1, 10, "ng")],
)
def test_least_score_and_area_are_inclusive(score: float, area: float, verdict: str) -> None:
    assert judge(NG, {"a": detect(("scratch", score, area))}, ["a"]) == verdict


def test_segmentation_is_judged_like_detection() -> None:
    assert judge(NG, {"a": SCRATCH | {"task": "segment"}}, ["a"]) == "ng"


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (classify(("scratch", 0.6), ("fine", 0.4)), "ng"),
        (classify(("fine", 0.4), ("scratch", 0.6)), "ng"),
        (classify(("fine", 0.6), ("scratch", 0.55)), "ok"),
        (classify(("scratch", 0.4), ("fine", 0.3)), "ok"),
        (classify(("fine", 0.5), ("scratch", 0.5)), "ng"),
        (classify(), "incomplete"),
    ],
)
def test_best_class_of_a_classification(body: dict[str, Any], verdict: str) -> None:
    assert judge(NG, {"a": body}, ["a"]) == verdict


def test_required_counts() -> None:
    one = detect(("screw", 0.9, 1.0), ("screw", 0.49, 1.0))
    assert judge(COUNTED, {"a": SCREWS}, ["a"]) == "ok"
    assert judge(COUNTED, {"a": one}, ["a"]) == "ng"
    assert judge(COUNTED, {"a": one, "b": None}, ["a", "b"]) == "incomplete"
    assert judge(COUNTED, {"a": SCREWS, "b": NOTHING}, ["a", "b"]) == "ok"
    assert judge(COUNTED, {"a": one}, ["a"], count_required=False) == "ok"


def test_two_models_that_see_the_same_screw_do_not_make_it_two() -> None:
    one = detect(("screw", 0.9, 1.0))
    assert judge(COUNTED, {"a": one, "b": one}, ["a", "b"]) == "ng"


def test_a_required_class_can_come_from_a_classification() -> None:
    good = Rules(required={"good": 1})
    assert judge(good, {"a": classify(("good", 0.9), ("bad", 0.1))}, ["a"]) == "ok"
    assert judge(good, {"a": classify(("bad", 0.9), ("good", 0.1))}, ["a"]) == "ng"
    assert judge(good, {"a": classify(("bad", 0.5), ("good", 0.5))}, ["a"]) == "ng"


def test_frame_of_a_part_has_no_verdict_where_only_counts_are_ruled() -> None:
    assert judge(Rules(required={"screw": 1}), {"a": SCREWS}, ["a"], count_required=False) == "none"


def test_random_weights_are_never_ok() -> None:
    assert judge(NG, {"a": NOTHING | {"random": True}}, ["a"]) == "incomplete"
    assert judge(NG, {"a": NOTHING, "b": NOTHING | {"random": True}}, ["a"]) == "incomplete"
    assert judge(NG, {"a": NOTHING, "b": {"task": "detect", "detections": 1, "random": True}}, ["a"]) == "incomplete"
    assert judge(NG, {"a": NOTHING | {"random": False}}, ["a"]) == "ok"
    assert judge(COUNTED, {"a": SCREWS | {"random": True}}, ["a"]) == "incomplete"


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "detect",
        {"detections": []},
        {"task": "detect"},
        {"task": "pose", "detections": []},
        {"task": ["detect"], "detections": []},
        {"task": "detect", "detections": {}},
        {"task": "detect", "detections": [None]},
        {"task": "detect", "detections": [{"name": "fine", "score": 0.5}]},
        {"task": "detect", "detections": [{"name": b"fine", "score": 0.5, "area": 1.0}]},
        detect(("fine", float("nan"), 1.0)),
        detect(("fine", float("inf"), 1.0)),
        detect(("fine", True, 1.0)),
        detect(("fine", 0.5, float("nan"))),
        detect(("fine", 0.5, -1.0)),
        detect(("scratch", 0.9, 100.0), ("fine", float("nan"), 1.0)),
        {"task": "classify", "classes": [{"name": "fine"}]},
        {"task": "classify", "classes": [{"name": 3, "score": 0.5}]},
        classify(("fine", float("nan"))),
    ],
)
def test_malformed_body_did_not_look(body: Any) -> None:
    assert judge(NG, {"a": body}, ["a"]) == "incomplete"
    assert judge(NG, {"a": NOTHING, "b": body}, ["a"]) == "ok"


def test_part_sums_counts_over_its_cameras() -> None:
    one = ({"a": detect(("screw", 0.9, 1.0))}, ["a"])
    assert judge_part(COUNTED, [one, one], []) == "ok"
    assert judge_part(COUNTED, [one], []) == "ng"
    assert judge_part(COUNTED, [one], ["right"]) == "incomplete"
    assert judge_part(COUNTED, [one, ({"a": None}, ["a"])], []) == "incomplete"
    assert judge_part(COUNTED, [({"a": SCREWS}, ["a"])], ["right"]) == "incomplete"


def test_part_is_ng_when_one_frame_is() -> None:
    assert judge_part(NG, [({"a": SCRATCH}, ["a"]), ({"a": None}, ["a"])], ["right"]) == "ng"


def test_part_without_frames_is_never_ok() -> None:
    assert judge_part(NG, [], []) == "incomplete"
    assert judge_part(NG, [], ["left"]) == "incomplete"


#: A busy machine must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

MODELS = ["a", "b", "c"]
NAMES = st.sampled_from(["scratch", "screw", "fine"])
FOUND = st.tuples(NAMES, st.sampled_from([0.4, 0.5, 0.9, float("nan")]), st.sampled_from([1.0, 10.0]))
JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["detect", "classify", "fine"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["task", "detections", "classes", "name", "score", "area", "random"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
BODIES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.lists(FOUND, max_size=4).map(lambda found: detect(*found)),
    st.lists(FOUND, max_size=2).map(lambda found: detect(*found, random=True)),
    st.lists(st.tuples(NAMES, st.sampled_from([0.4, 0.5, 0.9])), max_size=3).map(lambda found: classify(*found)),
    JUNK,
)
ANSWERS = st.dictionaries(st.sampled_from(MODELS), BODIES)
REQUIRED = st.lists(st.sampled_from(MODELS), unique=True)
RULES = st.builds(
    Rules,
    ng=st.lists(st.just("scratch"), max_size=1),
    least_score=st.sampled_from([0.0, 0.5]),
    least_area=st.sampled_from([0.0, 10.0]),
    required=st.dictionaries(st.just("screw"), st.integers(1, 3)),
)


@unhurried
@given(RULES, ANSWERS, REQUIRED, st.booleans())
def test_ok_is_never_said_with_a_required_answer_missing(
    rules: Rules, answers: Mapping[str, Any], required: list[str], counted: bool
) -> None:
    if judge(rules, answers, required, counted) == "ok":
        assert answers and all(answers.get(model) is not None for model in required or answers)
        assert not any(isinstance(body, Mapping) and body.get("random") is True for body in answers.values())
    missing = {**answers, MODELS[0]: None}
    assert judge(rules, missing, [*required, MODELS[0]], counted) != "ok"


@unhurried
@given(RULES, ANSWERS, REQUIRED, st.sampled_from(MODELS), BODIES, st.booleans())
@example(COUNTED, {"a": NOTHING, "b": None}, ["a"], "b", SCREWS, True)
def test_a_further_answer_never_turns_ng_into_ok(
    rules: Rules, answers: Mapping[str, Any], required: list[str], model: str, body: Any, counted: bool
) -> None:
    required = required or MODELS
    before = judge(rules, {**answers, model: None}, required, counted)
    after = judge(rules, {**answers, model: body}, required, counted)
    assert not (before == "ng" and after != "ng")
    assert not (before == "ok" and after == "incomplete" and body is None)


@unhurried
@given(RULES, st.lists(st.tuples(ANSWERS, REQUIRED), max_size=3), st.lists(st.just("left"), max_size=1))
def test_part_is_not_better_than_its_frames(
    rules: Rules, frames: list[tuple[Mapping[str, Any], list[str]]], missing: list[str]
) -> None:
    verdict = judge_part(rules, frames, missing)
    singles = [judge(rules, answers, required, count_required=False) for answers, required in frames]
    if "ng" in singles:
        assert verdict == "ng"
    if verdict == "ok":
        assert frames and not missing and set(singles) <= {"ok", "none"}


@unhurried
@given(RULES, ANSWERS, REQUIRED)
def test_part_of_one_camera_is_judged_like_its_frame(
    rules: Rules, answers: Mapping[str, Any], required: list[str]
) -> None:
    assert judge_part(rules, [(answers, required)], []) == judge(rules, answers, required)
