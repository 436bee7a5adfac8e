"""Drawing: the right places, the right colours, nothing outside of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients import lettering
from clients.banner import VERDICTS, banner, headline, notes
from clients.draw import LEAST_WIDTH, PALETTE, annotate, class_colour

GREY = np.full((480, 640, 3), 90, np.uint8)


def body(*detections: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"camera": "cam1", "seq": 7, "verdict": "ok", "results": {"det": {"detections": list(detections)}}, **fields}


def detection(box: list[float], **fields: Any) -> dict[str, Any]:
    return {"class": 0, "name": "dent", "score": 0.5, "box": box, **fields}


def below_banner(drawn: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    return drawn[drawn.shape[0] - height :]


def pixels_of(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(-1).sum())


def test_a_box_is_drawn_where_it_is_and_the_picture_is_left_alone() -> None:
    before = GREY.copy()
    picture = below_banner(annotate(before, body(detection([100, 200, 300, 400]))), 480)
    assert np.array_equal(before, GREY)
    colour = class_colour(0)
    for x, y in ((100, 300), (300, 300), (200, 400)):
        assert tuple(picture[y, x]) == colour
    assert tuple(picture[300, 200]) == (90, 90, 90), "the inside of a box stays as it is"
    assert np.array_equal(picture[:, 400:], GREY[:, 400:])


def test_a_contour_within_a_contour_is_a_hole() -> None:
    outer, inner = [100, 100, 300, 100, 300, 300, 100, 300], [150, 150, 250, 150, 250, 250, 150, 250]
    picture = below_banner(annotate(GREY, body(detection([100, 100, 300, 300], polygons=[outer, inner]))), 480)
    assert tuple(picture[200, 200]) == (90, 90, 90)
    mixed = [round(0.6 * 90 + 0.4 * part) for part in class_colour(0)]
    assert np.abs(picture[270, 270].astype(int) - mixed).max() <= 1


def test_small_pictures_are_enlarged_and_the_boxes_with_them() -> None:
    drawn = annotate(np.full((60, 80), 90, np.uint8), body(detection([20, 20, 40, 40])))
    factor = LEAST_WIDTH // 80
    assert drawn.shape[1] == 80 * factor
    picture = below_banner(drawn, 60 * factor)
    assert tuple(picture[30 * factor, 20 * factor]) == class_colour(0)


@pytest.mark.parametrize("box", [[0, 0, 2, 2], [637, 0, 639, 2], [0, 477, 2, 479], [637, 477, 639, 479]])
def test_a_label_at_the_edge_is_as_whole_as_one_in_the_middle(box: list[float]) -> None:
    middle = below_banner(annotate(GREY, body(detection([300, 200, 302, 202]))), 480)
    corner = below_banner(annotate(GREY, body(detection(box))), 480)
    colour = class_colour(0)
    assert pixels_of(corner, colour) >= 0.985 * pixels_of(middle, colour)


def test_labels_get_out_of_each_others_way() -> None:
    one = below_banner(annotate(GREY, body(detection([300, 200, 360, 240]))), 480)
    twice = [detection([300, 200, 360, 240]), detection([300, 202, 360, 242], **{"class": 1, "score": 0.4})]
    two = below_banner(annotate(GREY, body(*twice)), 480)
    label = pixels_of(one, class_colour(0))
    assert pixels_of(two, class_colour(1)) > 0.6 * label, "the second label is not hidden by the first"


def test_a_label_covers_no_box() -> None:
    small = [[200.0, 200.0 + 22 * row, 216.0, 212.0 + 22 * row] for row in range(3)]
    picture = below_banner(annotate(GREY, body(*(detection(box) for box in small))), 480)
    for x1, y1, x2, y2 in (map(int, box) for box in small):
        assert (picture[y1 + 4 : y2 - 3, x1 + 4 : x2 - 3] == 90).all(), "the inside of each box is seen"


def test_what_two_models_found_has_one_label() -> None:
    def drawn(*boxes: list[float]) -> int:
        results = {f"model{number}": {"detections": [detection(box)]} for number, box in enumerate(boxes)}
        return pixels_of(below_banner(annotate(GREY, body(results=results)), 480), class_colour(0))

    one, both = drawn([100, 200, 140, 240]), drawn([100, 200, 140, 240], [101, 200, 140, 241])
    assert both < 1.3 * one
    assert drawn([100, 200, 140, 240], [300, 200, 340, 240]) > 1.9 * one


@settings(max_examples=40, deadline=None)
@given(
    box=st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=4, max_size=4),
    size=st.tuples(st.integers(1, 200), st.integers(1, 900)),
    name=st.text(max_size=60),
)
def test_nothing_stops_at_odd_boxes_names_and_sizes(box: list[float], size: tuple[int, int], name: str) -> None:
    drawn = annotate(np.zeros((*size, 3), np.uint8), body(detection(box, name=name, polygons=[box, []])))
    assert drawn.dtype == np.uint8 and drawn.shape[1] >= size[1]


def test_random_weights_are_said_in_place_of_no_rules_and_beside_a_verdict() -> None:
    results = {"zoo": {"detections": [], "random": True}, "det": {"detections": []}, "odd": {"random": "no"}}
    told = {"verdict": "none", "results": results}
    assert headline(told)[0] == "RANDOM WEIGHTS"
    assert headline(told | {"results": {"det": {}}})[0] == "NO RULES"
    said = "random weights, what they find means nothing: zoo, odd"
    for verdict, word in (("none", "RANDOM WEIGHTS"), ("ng", "NG"), ("incomplete", "INCOMPLETE")):
        assert (headline(told | {"verdict": verdict})[0], said in notes(told | {"verdict": verdict})) == (word, True)
    strips = [banner(640, 20, told | {"results": {"zoo": {"random": random}}}) for random in (True, False)]
    assert strips[0].shape != strips[1].shape or not np.array_equal(strips[0], strips[1])


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_banner_says_the_verdict(verdict: str) -> None:
    strip = banner(640, 18, {"verdict": verdict, "camera": "cam1", "seq": 3})
    assert pixels_of(strip, VERDICTS[verdict][1]) > 200
    assert strip.shape[0] < 40


def test_the_banner_names_what_is_missing_on_as_many_lines_as_it_takes() -> None:
    missing = [{"model": f"model-number-{n}", "status": "expired", "reason": "queued"} for n in range(60)]
    short = banner(640, 18, body(missing=missing[:1], verdict="incomplete"))
    several = banner(640, 18, body(missing=missing[:8], verdict="incomplete"))
    bounded = banner(640, 18, body(missing=missing, verdict="incomplete"))
    assert short.shape[0] < several.shape[0] < bounded.shape[0] <= 6 * lettering.line_height(18) + 2


def test_classes_of_a_classifier_are_named_in_the_banner() -> None:
    plain = banner(640, 18, {"camera": "cam1", "seq": 3})
    classes = {"kind": {"classes": [{"class": 3, "name": "daisy", "score": 0.9}]}}
    assert banner(640, 18, {"camera": "cam1", "seq": 3, "results": classes}).shape[0] > plain.shape[0]


def test_colours_are_stable_and_differ() -> None:
    assert len({class_colour(number) for number in range(len(PALETTE))}) == len(PALETTE)
    assert class_colour(2) == class_colour(2 + len(PALETTE))


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["real font", "strokes"])
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """OpenCV 4 has no real font: what this machine's OpenCV lacks or has is the one thing that no fake stands for."""
    if request.param == "strokes":
        monkeypatch.setattr(lettering, "_FACE", None)
    elif lettering._FACE is None:
        pytest.skip("this OpenCV has no real font")
    return str(request.param)


@pytest.mark.parametrize("size", [14, 22, 48])
@pytest.mark.parametrize("text", ["scratch 0.93", "gÅ划痕", "W" * 200, "two words", "\ud800 b\udcff"])
def test_text_stays_in_the_room_that_it_was_given(face: str, text: str, size: int) -> None:
    room, left = 150, 20
    image = np.zeros((lettering.line_height(size), 300, 3), np.uint8)
    shown = lettering.fit(text, size, room)
    lettering.write(image, shown, left, 0, size, (255, 255, 255))
    columns = np.flatnonzero(image.any((0, 2)))
    assert columns.size and columns[0] >= left - 2 and columns[-1] <= left + room + 1
    rows = np.flatnonzero(image.any((1, 2)))
    assert rows[0] > 0, "the letters have room above them"


def test_text_is_wrapped_at_spaces(face: str) -> None:
    lines = lettering.wrap("one two three four five " + "x" * 300, 18, 100)
    assert len(lines) > 2 and all(lettering.width(line, 18) <= 100 for line in lines)
    assert lettering.wrap("", 18, 100) == []
    assert lettering.fit("anything", 18, 1) == ""
