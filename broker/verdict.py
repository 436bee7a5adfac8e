"""Verdicts: what a station's rules say of a frame, or of a part that several cameras saw. Pure functions.

Fail-safe: whatever is missing, malformed or made by random weights counts as "did not look", and what did not look
is never `ok`. An NG class that was seen is `ng`, whoever else is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final, NamedTuple, TypeGuard

from broker.line import Rules
from broker.wire import Verdict

#: Model -> its decoded result body (docs/design.md, "Result bodies") where its status is `ok`, else None.
Answers = Mapping[str, Mapping[str, Any] | None]

_DETECTING: Final = frozenset({"detect", "segment"})


def judge(rules: Rules | None, answers: Answers, required: Sequence[str], count_required: bool = True) -> Verdict:
    """The verdict of one frame.

    `answers` holds every model that was to look; `required` names those that must have looked (empty: all of them).
    Counts of `rules.required` are taken from the answers of required models only, and of those the highest count
    holds: two models that see the same screw do not make it two. `count_required=False` leaves the counts out: right
    for a frame of a part that several cameras see, since only the part shows them all (`judge_part`). A frame to which
    no rule applies is `none`.
    """
    if rules is None or not (rules.ng or (count_required and rules.required)):
        return "none"
    return _conclude(rules, [_see(rules, answers, required)], True, count_required)


def judge_part(
    rules: Rules | None, frames: Iterable[tuple[Answers, Sequence[str]]], missing_cameras: Sequence[str]
) -> Verdict:
    """The verdict of one part: `frames` holds (answers, required models) of each camera's frame, as for `judge`.

    Required counts are summed over the frames; `ok` needs every camera, and every required model in every frame.
    """
    if rules is None or not (rules.ng or rules.required):
        return "none"
    sights = [_see(rules, answers, required) for answers, required in frames]
    return _conclude(rules, sights, bool(sights) and not missing_cameras, True)


class _Sight(NamedTuple):
    """What one frame shows: `fired`: an NG class; `looked`: every required model; `random`: an answer of random
    weights; `counts`: class -> how many."""

    fired: bool
    looked: bool
    random: bool
    counts: dict[str, int]


def _see(rules: Rules, answers: Answers, required: Sequence[str]) -> _Sight:
    fired = random = False
    counts: dict[str, int] = {}
    needed = frozenset(required or answers)
    missing = set(needed)
    for model, body in answers.items():
        seen = _look(rules, body)
        is_random = isinstance(body, Mapping) and body.get("random", False) is not False
        random |= is_random
        if seen is None:
            continue
        fired |= seen[0]
        if not is_random and model in needed:
            missing.discard(model)
            for name, count in seen[1].items():
                counts[name] = max(count, counts.get(name, 0))
    return _Sight(fired, bool(needed) and not missing, random, counts)


def _conclude(rules: Rules, sights: list[_Sight], all_there: bool, count_required: bool) -> Verdict:
    if any(sight.fired for sight in sights):
        return "ng"
    if not all_there or not all(sight.looked for sight in sights):
        return "incomplete"
    if count_required and any(
        sum(sight.counts.get(name, 0) for sight in sights) < least for name, least in rules.required.items()
    ):
        return "ng"
    return "incomplete" if any(sight.random for sight in sights) else "ok"


def _look(rules: Rules, body: object) -> tuple[bool, dict[str, int]] | None:
    """(an NG class was seen, class -> how many) of one model's answer; None: malformed, it did not look."""
    if not isinstance(body, Mapping):
        return None
    task = body.get("task")
    if not isinstance(task, str):
        return None
    if task in _DETECTING:
        return _look_at_detections(rules, body.get("detections"))
    return _look_at_classes(rules, body.get("classes")) if task == "classify" else None


def _look_at_detections(rules: Rules, detections: object) -> tuple[bool, dict[str, int]] | None:
    if not isinstance(detections, list | tuple):
        return None
    fired, counts = False, dict[str, int]()
    for detection in detections:
        named = _name_and_score(detection)
        if named is None or not _is_number(area := detection.get("area")) or area < 0:
            return None
        name, score = named
        if score < rules.least_score:
            continue
        fired |= area >= rules.least_area and name in rules.ng
        counts[name] = counts.get(name, 0) + 1
    return fired, counts


def _look_at_classes(rules: Rules, classes: object) -> tuple[bool, dict[str, int]] | None:
    """Only the best class says anything; of several equally good ones an NG class fires, and none counts."""
    if not isinstance(classes, list | tuple) or not classes:
        return None
    scores: list[tuple[str, float]] = []
    for entry in classes:
        named = _name_and_score(entry)
        if named is None:
            return None
        scores.append(named)
    best = max(score for _, score in scores)
    if best < rules.least_score:
        return False, {}
    top = {name for name, score in scores if score == best}
    return not top.isdisjoint(rules.ng), dict.fromkeys(top, 1) if len(top) == 1 else {}


def _name_and_score(entry: object) -> tuple[str, float] | None:
    if not isinstance(entry, Mapping):
        return None
    name, score = entry.get("name"), entry.get("score")
    return (name, score) if isinstance(name, str) and _is_number(score) else None


def _is_number(value: Any) -> TypeGuard[float]:
    """A finite number; a bool is none, though Python says so."""
    return type(value) in (float, int) and -inf < value < inf
