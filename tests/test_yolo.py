from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from broker.wire import MAX_DETECTIONS
from workers import classify, coco, image, masks, yolo
from workers.errors import OutputError
from workers.model import Hints
from workers.options import ModelOptions
from workers.placement import PAD, Fit, Placement, Scaling, fill, place
from workers.runner import Runner
from workers.yolo import Array

SIDES = st.integers(1, 5000)
FITS: list[Fit] = ["letterbox", "stretch", "crop"]

# --- placement -------------------------------------------------------------------------------------------------------


@given(SIDES, SIDES, st.sampled_from([96, 160, 224, 640]), st.sampled_from([96, 160, 224, 640]))
def test_letterbox_keeps_proportions_and_centres(height: int, width: int, high: int, wide: int) -> None:
    placement = place((height, width), (high, wide), "letterbox")
    top, left, inner_height, inner_width = placement.target
    assert 0 <= top <= high - inner_height
    assert 0 <= left <= wide - inner_width
    assert inner_height == high or inner_width == wide
    assert abs((high - inner_height) / 2 - top) <= 1
    assert abs((wide - inner_width) / 2 - left) <= 1
    ratio = min(high / height, wide / width)
    assert abs(inner_height - height * ratio) <= max(0.5, 1 - height * ratio) + 1e-6
    assert abs(inner_width - width * ratio) <= max(0.5, 1 - width * ratio) + 1e-6


def test_letterbox_of_the_yolov5_sizes() -> None:
    assert place((1080, 810), (640, 640), "letterbox").target == (0, 80, 640, 480)
    assert place((720, 1280), (640, 640), "letterbox").target == (140, 0, 360, 640)
    assert place((424, 640), (640, 640), "letterbox").target == (108, 0, 424, 640)


@given(SIDES, SIDES, st.sampled_from(FITS), st.data())
def test_boxes_come_back_where_they_were(height: int, width: int, fit: Fit, data: st.DataObject) -> None:
    placement = place((height, width), (640, 416), fit)
    corners = [data.draw(st.floats(0, limit, width=32)) for limit in (width, height, width, height)]
    boxes = np.array([corners], np.float32)
    there = placement.to_input(boxes)
    assert np.allclose(placement.to_frame(there), boxes, atol=2e-3)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("frame", [(1080, 1920), (480, 640), (333, 517), (120, 100)])
def test_what_is_seen_in_the_input_lies_where_the_formula_says(frame: tuple[int, int], fit: Fit) -> None:
    """A round spot is drawn at a known place between pixels; its centre of mass in the input comes back to there."""
    placement = place(frame, (320, 416), fit)
    y, x = np.mgrid[: frame[0], : frame[1]] + 0.5
    spread = 5 / min(placement.scale)
    for share in ((0.5, 0.5), (0.413, 0.577), (0.561, 0.467)):
        centre = (frame[1] * share[0] + 0.3, frame[0] * share[1] - 0.2)
        spot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * spread**2))
        out = np.empty((3, 320, 416), np.float32)
        grey = np.rint(255 * spot).astype(np.uint8)
        fill(grey, placement, Scaling().table(), out)
        top, left, height, width = placement.target
        seen = out[0, top : top + height, left : left + width]
        down, right = np.mgrid[:height, :width] + 0.5
        found = (left + (seen * right).sum() / seen.sum(), top + (seen * down).sum() / seen.sum())
        back = placement.to_frame(np.array([[*found, *found]], np.float32))[0, :2]
        assert np.abs(back - centre).max() < 0.05 / min(1.0, *placement.scale)


@pytest.mark.parametrize("fit", FITS)
def test_the_whole_target_is_the_source(fit: Fit) -> None:
    placement = place((100, 333), (64, 96), fit)
    top, left, height, width = placement.target
    y, x, source_height, source_width = placement.source
    target = np.array([[left, top, left + width, top + height]], np.float32)
    assert placement.to_frame(target)[0] == pytest.approx([x, y, x + source_width, y + source_height], abs=1e-3)


def test_boxes_are_cut_at_the_frame() -> None:
    placement = place((100, 200), (640, 640), "letterbox")
    assert placement.to_frame(np.array([[-50, -50, 9999, 9999]], np.float32))[0].tolist() == [0, 0, 200, 100]


def test_crop_takes_the_middle() -> None:
    assert place((300, 500), (224, 224), "crop").source == (0, 100, 300, 300)
    assert place((500, 300), (224, 224), "crop").source == (100, 0, 300, 300)


def test_fill_is_the_plain_formula() -> None:
    picture = np.random.default_rng(3).integers(0, 256, (90, 160, 3), np.uint8)
    placement = place((90, 160), (128, 128), "letterbox")
    scaling = Scaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    out = np.full((3, 128, 128), np.nan, np.float32)
    fill(picture, placement, scaling.table(), out)
    canvas = np.full((128, 128, 3), PAD, np.uint8)
    canvas[28:100] = cv2.resize(picture, (128, 72), interpolation=cv2.INTER_LINEAR)
    expected = (canvas[:, :, ::-1] - np.array(scaling.mean)) / np.array(scaling.std)
    assert np.allclose(out, expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (200, 300)])
def test_grey_is_three_equal_planes_and_overwrites_what_was_there(size: tuple[int, int]) -> None:
    grey = np.random.default_rng(4).integers(0, 256, (50, 70), np.uint8)
    table = Scaling().table()
    flat, colour = np.full((3, *size), 7, np.float32), np.full((3, *size), 9, np.float32)
    placement = place((50, 70), size, "letterbox")
    fill(grey, placement, table, flat)
    fill(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).view(np.uint8), placement, table, colour)
    assert np.array_equal(flat, colour)


# --- detections ------------------------------------------------------------------------------------------------------


def overlap(first: Array, second: Array) -> float:
    """IoU of two boxes in double precision, by definition."""
    x1, y1 = max(first[0], second[0]), max(first[1], second[1])
    x2, y2 = min(first[2], second[2]), min(first[3], second[3])
    shared = max(0.0, float(x2) - float(x1)) * max(0.0, float(y2) - float(y1))
    areas = [float(box[2] - box[0]) * float(box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared) if shared else 0.0


def brute_force(boxes: Array, scores: Array, classes: Any, iou: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda i: -float(scores[i])):
        if all(classes[k] != classes[index] or overlap(boxes[k], boxes[index]) <= iou for k in kept):
            kept.append(index)
    return kept


@settings(max_examples=200)
@given(st.integers(0, 30), st.data())
def test_suppress_is_the_brute_force_answer(count: int, data: st.DataObject) -> None:
    # Whole numbers: overlaps are then exact and a threshold in between cannot be hit by rounding.
    corners = data.draw(hnp.arrays(np.float32, (count, 2), elements=st.integers(0, 12)))
    sides = data.draw(hnp.arrays(np.float32, (count, 2), elements=st.integers(1, 12)))
    scores = data.draw(hnp.arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    classes = data.draw(hnp.arrays(np.intp, count, elements=st.integers(0, 2)))
    boxes = np.concatenate((corners, corners + sides), axis=1)
    found = yolo.suppress(boxes, scores, classes, 0.4501, MAX_DETECTIONS)
    assert found.tolist() == brute_force(boxes, scores, classes, 0.4501)


@given(hnp.arrays(np.float32, st.integers(0, 60), elements=st.integers(0, 9)), st.integers(1, 70))
def test_the_strongest_are_the_first_of_a_stable_sort(scores: Array, count: int) -> None:
    expected = sorted(range(len(scores)), key=lambda index: -scores[index])[:count]
    assert yolo.strongest(scores, count).tolist() == expected


def many_scores() -> dict[str, Array]:
    """Such as a sample of them tells much about, and such as it deceives."""
    random = np.random.default_rng(5)
    number = np.arange(25_200)
    scores = {
        "random": random.random(25_200),
        "with ties": random.integers(0, 40, 25_200),
        "all equal": np.ones(25_200),
        "falling": -number,
        "high where the sample looks": number % 8 == 0,
        "low where the sample looks": (number % 8 != 0) * random.random(25_200),
        "few above the rest": number > 25_190,
    }
    return {name: values.astype(np.float32) for name, values in scores.items()}


@pytest.mark.parametrize("count", [1, 9, 1000, 12_599, 12_600, 25_199])
@pytest.mark.parametrize("scores", many_scores().values(), ids=many_scores())
def test_the_strongest_of_many_are_the_first_of_a_stable_sort(scores: Array, count: int) -> None:
    assert np.array_equal(yolo.strongest(scores, count), np.argsort(-scores, kind="stable")[:count])


@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.parametrize("limit", [1, 50, 300])
def test_many_boxes_of_random_sizes_are_suppressed_as_by_brute_force(classes: int, limit: int) -> None:
    """More than one block of them, in clusters, so that most are covered."""
    random = np.random.default_rng(classes)
    centres = random.integers(0, 12, (500, 2)) * 50 + random.normal(0, 6, (500, 2))
    sides = random.uniform(20, 60, (500, 2))
    boxes = np.concatenate((centres - sides / 2, centres + sides / 2), axis=1).astype(np.float32)
    scores: Array = (random.permutation(500) / 500).astype(np.float32)
    labels = random.integers(0, classes, 500)
    found = yolo.suppress(boxes, scores, labels, 0.45, limit)
    assert found.tolist() == brute_force(boxes, scores, labels, 0.45)[:limit]


@pytest.mark.parametrize("shift", [30, 59, 60, 100], ids=lambda shift: f"{shift}")
def test_boxes_of_one_row_each_covered_by_the_one_before_are_suppressed_as_by_brute_force(shift: int) -> None:
    """A chain: a box stays where the one before it did not, block after block."""
    left = np.arange(1000) * shift
    boxes = np.stack((left, left * 0, left + 200, left * 0 + 10), axis=1).astype(np.float32)
    scores: Array = np.linspace(1, 0.1, 1000, dtype=np.float32)
    labels = np.zeros(1000, np.intp)
    found = yolo.suppress(boxes, scores, labels, 0.4501, MAX_DETECTIONS)
    assert found.tolist() == brute_force(boxes, scores, labels, 0.4501)[:MAX_DETECTIONS]


def test_boxes_as_large_as_numbers_go_are_no_warning() -> None:
    far = np.float32(3e38)
    boxes = np.array([[-far, -far, far, far], [-far, -far, -far, -far], [far, far, far, far], [0, 0, 9, 9]], np.float32)
    found = yolo.suppress(boxes, np.linspace(1, 0.5, 4, dtype=np.float32), np.zeros(4, np.intp), 0.45, 300)
    assert found.tolist() == [0, 1, 2, 3]


def rows(*entries: tuple[float, ...]) -> Array:
    return np.array(entries, np.float32)


def test_candidates_need_objectness_times_class_score() -> None:
    output = rows(
        (50, 50, 20, 10, 0.9, 0.2, 0.8),
        (80, 80, 20, 10, 0.9, 0.1, 0.2),
        (90, 90, 20, 10, 0.2, 1.0, 1.0),
        (10, 10, 4, 4, 0.95, 0.9, 0.1),
    )
    found = yolo.candidates(output, 2, 0.25)
    assert found.classes.tolist() == [0, 1]
    assert found.scores == pytest.approx([0.855, 0.72])
    assert found.boxes.tolist() == [[8, 8, 12, 12], [40, 45, 60, 55]]


def test_no_candidates() -> None:
    found = yolo.detect(np.zeros((25200, 85), np.float32), 80, 0.25, 0.45)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def by_definition(output: Array, classes: int, confidence: float, iou: float) -> list[tuple[Any, ...]]:
    """What is in YOLOv8's output, box by box in plain Python: class, score, corners, coefficients; best first."""
    found = []
    for box in output.T.tolist():
        scores = box[4 : 4 + classes]
        best = max(range(classes), key=lambda number: scores[number])
        if scores[best] > np.float32(confidence):
            x, y, width, height = box[:4]
            sides = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            found.append((best, scores[best], sides, box[4 + classes :]))
    found.sort(key=lambda one: -one[1])
    kept: list[tuple[Any, ...]] = []
    for one in found:
        if all(one[0] != other[0] or overlap(np.array(one[2]), np.array(other[2])) <= iou for other in kept):
            kept.append(one)
    return kept


@settings(max_examples=100)
@given(st.integers(0, 40), st.integers(1, 5), st.sampled_from([0, 3]), st.data())
def test_yolov8_boxes_are_those_of_the_definition(count: int, classes: int, more: int, data: st.DataObject) -> None:
    # Whole halves: overlaps are then exact; scores differ, so that their order is certain.
    centres = data.draw(hnp.arrays(np.float32, (2, count), elements=st.integers(0, 12)))
    sides = data.draw(hnp.arrays(np.float32, (2, count), elements=st.integers(1, 12)))
    order = np.random.default_rng(data.draw(st.integers(0, 1000)))
    scores = order.permutation(count * classes).reshape(classes, count) / max(1, count * classes)
    output = np.concatenate((centres, sides, scores, order.random((more, count)))).astype(np.float32)
    found = yolo.detect(output, classes, 0.3, 0.4501, "yolov8")
    expected = by_definition(output, classes, 0.3, 0.4501)
    assert found.classes.tolist() == [one[0] for one in expected]
    assert found.scores.tolist() == [one[1] for one in expected]
    assert found.boxes.tolist() == [one[2] for one in expected]
    assert found.coefficients.tolist() == [one[3] for one in expected]


@pytest.mark.parametrize("row", range(6))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_yolov8_answer_that_is_no_number_is_not_nothing_found(row: int, value: float) -> None:
    output = np.array([[50, 50, 20, 10, 0.2, 0.8], [9, 9, 2, 2, 0.1, 0.1]], np.float32).T.copy()
    output[row, 0] = value
    with pytest.raises(OutputError):
        yolo.detect(output, 2, 0.25, 0.45, "yolov8")


def test_the_two_layouts_of_one_picture_give_the_same_answer(testdata: Path, tmp_path: Path) -> None:
    """A YOLOv5 export, turned round by its own graph: objectness is multiplied in, and boxes become columns."""
    source, turned = testdata / "models" / "yolov5n-seg.onnx", tmp_path / "turned.onnx"
    turn(source, turned)
    picture = image.load(testdata / "images" / "person.jpg")
    bodies = [
        Runner.load(ModelOptions(name="m", source=path, hints=Hints(names=coco.NAMES)), 2).look(picture)
        for path in (source, turned)
    ]
    assert bodies[0]["task"] == bodies[1]["task"] == "segment"
    assert len(bodies[0]["detections"]) == len(bodies[1]["detections"]) > 1
    for one, other in zip(bodies[0]["detections"], bodies[1]["detections"], strict=True):
        assert (one["class"], one["box"]) == (other["class"], other["box"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["polygons"] == other["polygons"]


def turn(source: Path, target: Path) -> None:
    model = onnx.load(source)
    graph = model.graph
    numbers = {"i0": [0], "i4": [4], "i5": [5], "i85": [85], "i117": [117], "axis": [2]}
    graph.initializer.extend(onnx.numpy_helper.from_array(np.array(value), name) for name, value in numbers.items())
    parts = {"box": ("i0", "i4"), "objectness": ("i4", "i5"), "scores": ("i5", "i85"), "coefficients": ("i85", "i117")}
    for node in graph.node:
        node.output[:] = ["rows" if name == "output0" else name for name in node.output]
    for name, bounds in parts.items():
        graph.node.append(onnx.helper.make_node("Slice", ["rows", *bounds, "axis"], [name]))
    graph.node.append(onnx.helper.make_node("Mul", ["scores", "objectness"], ["product"]))
    graph.node.append(onnx.helper.make_node("Concat", ["box", "product", "coefficients"], ["table"], axis=2))
    graph.node.append(onnx.helper.make_node("Transpose", ["table"], ["output0"], perm=[0, 2, 1]))
    for side, length in zip(graph.output[0].type.tensor_type.shape.dim[1:], (116, 25200), strict=True):
        side.dim_value = length
    onnx.save(model, target)


def test_classes_do_not_suppress_each_other() -> None:
    output = rows((50, 50, 20, 20, 1, 0.9, 0), (50, 50, 20, 20, 1, 0, 0.8), (51, 50, 20, 20, 1, 0.7, 0))
    assert yolo.detect(output, 2, 0.25, 0.45).classes.tolist() == [0, 1]


def test_a_flood_of_candidates_is_bounded() -> None:
    random = np.random.default_rng(0)
    output = np.concatenate(
        (random.random((25200, 4)) * 600, np.ones((25200, 1)), random.random((25200, 3))), axis=1
    ).astype(np.float32)
    output[:, 2:4] = 1
    found = yolo.detect(output, 3, 0.25, 0.45)
    assert len(found) == MAX_DETECTIONS
    assert found.scores.min() > 0.9
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("column", range(7))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_not_nothing_found(column: int, value: float) -> None:
    output = rows((50, 50, 20, 10, 0.9, 0.2, 0.8))
    output[0, column] = value
    with pytest.raises(OutputError):
        yolo.detect(output, 2, 0.25, 0.45)


# --- masks -----------------------------------------------------------------------------------------------------------


def disc(size: int, centre: tuple[float, float], radius: float) -> Array:
    """Logits of a disc, in a grid of `size` x `size`; positive inside."""
    y, x = np.mgrid[:size, :size]
    logits: Array = (radius - np.hypot(x + 0.5 - centre[0], y + 0.5 - centre[1])).astype(np.float32)
    return logits


def drawn(lists: list[list[int]], height: int, width: int) -> Any:
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.array(points).reshape(-1, 2) for points in lists], 1)
    return canvas


def in_frame(coefficients: Array, prototypes: Array, box: Array, placement: Placement) -> tuple[Any, float]:
    inside, raster = masks.mask(coefficients, prototypes, box, placement)
    return drawn(masks.polygons(inside, raster), *placement.frame), masks.area(inside, raster)


@pytest.mark.parametrize("frame", [(640, 640), (480, 640), (1080, 1920), (300, 200), (200, 1600)])
def test_a_disc_comes_back_in_frame_pixels(frame: tuple[int, int]) -> None:
    placement = place(frame, (640, 640), "letterbox")
    top, left, height, width = (number / 4 for number in placement.target)
    centre, radius = (left + width / 2, top + height / 2), min(height, width) / 3
    box = np.array([[0, 0, frame[1], frame[0]]], np.float32)[0]
    found, area = in_frame(np.ones(1, np.float32), disc(160, centre, radius)[None], box, placement)
    ratio = placement.scale[0] / 4
    y, x = np.mgrid[: frame[0], : frame[1]]
    expected = np.hypot(x + 0.5 - frame[1] / 2, y + 0.5 - frame[0] / 2) <= radius / ratio
    shared = np.logical_and(found, expected).sum() / np.logical_or(found, expected).sum()
    assert shared > 0.96
    assert area == pytest.approx(expected.sum(), rel=0.03)


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize("frame", [(640, 640), (480, 640), (1080, 1920), (300, 200), (200, 1600)])
def test_a_mask_lies_where_the_object_is(frame: tuple[int, int], fit: Fit) -> None:
    placement = place(frame, (640, 640), fit)
    # A box off the centre of what the model sees, and prototypes that are 1 inside it and -1 around.
    top, left, height, width = placement.source
    box = np.array([left + width / 4, top + height / 8, left + width / 2, top + height * 7 / 8], np.float32)
    x1, y1, x2, y2 = placement.to_input(box[None])[0] / 4
    y, x = np.mgrid[:160, :160] + 0.5
    prototypes = np.where((x1 <= x) & (x < x2) & (y1 <= y) & (y < y2), 1, -1).astype(np.float32)[None]
    found, area = in_frame(np.ones(1, np.float32), prototypes, box, placement)
    ys, xs = np.nonzero(found)
    slack = 1 + 2 * max(4 / scale for scale in placement.scale)
    assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == pytest.approx(box, abs=slack)
    assert area == pytest.approx((box[2] - box[0]) * (box[3] - box[1]), rel=0.1)


def test_polygons_are_the_mask() -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(1).random((200, 300)).astype(np.float32), (0, 0), 9)
    inside = (smooth > 0.5).astype(np.uint8)
    lists = masks.polygons(inside, masks.Raster((0, 0), (1, 1)))
    canvas = drawn(lists, 200, 300).astype(bool)
    assert np.logical_and(canvas, inside).sum() / np.logical_or(canvas, inside).sum() > 0.95


def test_a_hole_stays_open() -> None:
    ring = np.minimum(disc(160, (80, 80), 60), -disc(160, (80, 80), 30))
    box = np.array([0, 0, 640, 640], np.float32)
    placement = place((640, 640), (640, 640), "letterbox")
    found, _ = in_frame(np.ones(1, np.float32), ring[None], box, placement)
    assert found[320, 320] == 0
    assert found[320, 320 + 180] == 1


def test_a_mask_ends_at_its_box() -> None:
    placement = place((1080, 1920), (640, 640), "letterbox")
    box = np.array([300.2, 400.7, 700.4, 650.1], np.float32)
    found, area = in_frame(np.ones(1, np.float32), np.ones((1, 160, 160), np.float32), box, placement)
    ys, xs = np.nonzero(found)
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == pytest.approx((300.2, 700.4, 400.7, 650.1), abs=2)
    assert area == pytest.approx(400.2 * 249.4, rel=0.02)


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.data())
def test_masks_of_any_box_are_bounded_and_inside_the_frame(height: int, width: int, data: st.DataObject) -> None:
    placement = place((height, width), (640, 640), "letterbox")
    x = sorted(data.draw(st.floats(0, width, width=32)) for _ in range(2))
    y = sorted(data.draw(st.floats(0, height, width=32)) for _ in range(2))
    box = np.array([x[0], y[0], x[1], y[1]], np.float32)
    inside, raster = masks.mask(np.ones(1, np.float32), np.ones((1, 160, 160), np.float32), box, placement)
    assert 1 <= inside.size <= 1.2 * masks.RASTER + 2000
    slack = 2 * max(1.0, *raster.step)
    for points in masks.polygons(inside, raster):
        assert -slack <= min(points[::2])
        assert max(points[::2]) <= width + slack
        assert max(points[1::2]) <= height + slack


# --- classification --------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-80, 80, width=32)))
def test_softmax(scores: Array) -> None:
    probabilities = classify.softmax(scores)
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert probabilities.argmax() == scores.argmax() or probabilities.max() == probabilities[scores.argmax()]
    assert classify.are_probabilities(probabilities[None])


def test_top_is_sorted_and_refuses_nan() -> None:
    assert [index for index, _ in classify.top(np.array([0.1, 0.5, 0.0, 0.4], np.float32), 3)] == [1, 3, 0]
    with pytest.raises(OutputError):
        classify.top(np.array([0.1, np.nan], np.float32))


def test_logits_are_no_probabilities() -> None:
    assert not classify.are_probabilities(np.array([[0.2, 0.3, 0.1]], np.float32))
    assert not classify.are_probabilities(np.array([[-1.0, 2.0]], np.float32))


# --- real models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["yolov5n", "yolov5n-fp16", "yolov5n-seg"])
def test_detections_agree_with_the_baseline(testdata: Path, model: str) -> None:
    baseline = json.loads((testdata / "baseline_detections.json").read_text(encoding="utf-8"))[f"{model}.onnx"]
    runner = Runner.load(ModelOptions(name=model, source=testdata / "models" / f"{model}.onnx"), 2)
    for name, expected in baseline.items():
        picture = image.load(testdata / "images" / name)
        height, width = picture.shape[:2]
        found = runner.look(picture)["detections"]
        assert len(found) == len(expected)
        for ours, theirs in zip(found, sorted(expected, key=lambda entry: -entry["score"]), strict=True):
            assert (ours["class"], ours["name"]) == (theirs["cls"], theirs["name"])
            assert ours["score"] == pytest.approx(theirs["score"], abs=0.01)
            # The baseline's boxes may reach out of the picture, ours do not.
            assert ours["box"] == pytest.approx(np.clip(theirs["xyxy"], 0, [width, height] * 2), abs=2)


def test_segments_fill_their_boxes_like_persons_do(testdata: Path) -> None:
    runner = Runner.load(ModelOptions(name="seg", source=testdata / "models" / "yolov5n-seg.onnx"), 2)
    picture = image.load(testdata / "images" / "person.jpg")
    body = runner.look(picture)
    assert body["task"] == "segment"
    for entry in body["detections"]:
        x1, y1, x2, y2 = entry["box"]
        canvas = drawn(entry["polygons"], *picture.shape[:2])
        assert entry["area"] == pytest.approx(canvas.sum(), rel=0.06)
        assert 0.35 < entry["area"] / ((x2 - x1) * (y2 - y1)) < 0.95
        ys, xs = np.nonzero(canvas)
        assert (xs.min(), ys.min(), xs.max(), ys.max()) == pytest.approx((x1, y1, x2, y2), abs=12)
    # Between the horse's legs there is grass.
    horse = next(entry for entry in body["detections"] if entry["name"] == "horse")
    assert drawn(horse["polygons"], *picture.shape[:2])[310, 540] == 0


@pytest.mark.parametrize(
    ("picture", "expected"), [("cat.bmp", "Egyptian cat"), ("bird.bmp", "chickadee"), ("sunflower.bmp", "daisy")]
)
def test_mobilenet_names_the_picture(testdata: Path, picture: str, expected: str) -> None:
    labels = (testdata / "images" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    hints = Hints(names=tuple(labels), mean=(127.5,), std=(127.5,), fit="stretch")
    runner = Runner.load(ModelOptions(name="m", source=testdata / "models" / "mobilenetv2.onnx", hints=hints), 2)
    runner.warm_up()
    assert runner.probabilities
    best, second = runner.look(image.load(testdata / "images" / picture))["classes"][:2]
    assert best["name"] == expected
    assert best["score"] > max(0.7, 2 * second["score"])
