from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from broker import desk
from broker.line import Rules
from broker.wire import List
from clients.camera import Camera
from tests.peers import Context
from tests.whole_line import whole_line
from workers import tiny
from workers.engine.fake import Fake
from workers.zoo.catalogue import find
from workers.zoo.making import Order, make

Endpoint = Callable[[str], str]


def spots(number: int) -> Any:
    """A dark picture with one bright spot whose place says which frame it is."""
    picture = np.zeros((160, 160, 3), np.uint8)
    cv2.circle(picture, (20 + 12 * (number % 10), 80), 4, (255, 255, 255), -1)
    return picture


def assert_reconciled(report: dict[str, Any], frames: int, models: int) -> None:
    assert (report["accepted"], report["joined"], report["open"]) == (frames, frames, 0)
    assert (report["duplicates"], report["unpublished"], report["published"]) == (0, 0, frames)
    assert sum(sum(statuses.values()) for statuses in report["statuses"].values()) == frames * models


def test_every_frame_of_two_cameras_is_joined_once_and_its_answer_is_its_own(
    endpoint: Endpoint, context: Context, tmp_path: Path
) -> None:
    model = tmp_path / "tiny.onnx"
    tiny.make(model)
    frames = 30
    with whole_line(endpoint, context, tmp_path, {"tiny-a": model, "tiny-b": model}) as line:
        with (
            Camera("cam1", endpoint=line.line.endpoints.frontend, context=context, deadline=30.0) as first,
            Camera("cam2", endpoint=line.line.endpoints.frontend, context=context, deadline=30.0) as second,
        ):
            for number in range(frames):
                first.send(spots(number), encoding="bgr8", timeout=20.0)
                second.send(spots(number + 5), timeout=20.0)
            assert first.flush(30.0)
            assert second.flush(30.0)
            for camera in (first, second):
                assert (camera.stats.complete, camera.stats.incomplete) == (frames, 0)
        line.wait_published(2 * frames)
        report = line.report()
    assert_reconciled(report, 2 * frames, 2)
    seen = {(body["camera"], body["seq"]) for _, _, body in line.published}
    assert seen == {(camera, seq) for camera in ("cam1", "cam2") for seq in range(frames)}
    for _, _, body in line.published:
        assert body["outcome"] == "complete"
        shift = 5 if body["camera"] == "cam2" else 0
        for model_name in ("tiny-a", "tiny-b"):
            (spot,) = body["results"][model_name]["detections"]
            left, top, right, bottom = spot["box"]
            assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(
                (20 + 12 * ((body["seq"] + shift) % 10), 80), abs=3
            )


def test_published_numbers_grow_without_a_gap_and_name_their_predecessor(
    endpoint: Endpoint, context: Context, tmp_path: Path
) -> None:
    model = tmp_path / "tiny.onnx"
    tiny.make(model)
    with whole_line(endpoint, context, tmp_path, {"tiny": model}) as line:
        with Camera("cam1", endpoint=line.line.endpoints.frontend, context=context, deadline=30.0) as camera:
            for number in range(10):
                camera.send(spots(number), timeout=20.0)
        line.wait_published(10)
    numbers = [header["seq"] for _, header, _ in line.published]
    assert numbers == sorted(numbers)
    assert [header["previous"] for _, header, _ in line.published] == [None, *numbers[:-1]]


@pytest.mark.slow
def test_detections_agree_with_the_published_baseline_through_the_whole_line(
    endpoint: Endpoint, context: Context, tmp_path: Path, testdata: Path
) -> None:
    baseline = json.loads((testdata / "baseline_detections.json").read_text())
    files = {name.removesuffix(".onnx"): name for name in baseline if name.endswith(".onnx")}
    pictures = sorted({picture for file in files.values() for picture in baseline[file]})
    models = {name: testdata / "models" / file for name, file in files.items()}
    with whole_line(endpoint, context, tmp_path, models) as line:
        with Camera("cam1", endpoint=line.line.endpoints.frontend, context=context, deadline=60.0) as camera:
            for picture in pictures:
                camera.send((testdata / "images" / picture).read_bytes(), timeout=60.0)
            assert camera.flush(60.0)
        line.wait_published(len(pictures))
    for _, _, body in line.published:
        for name, file in files.items():
            wanted = baseline[file].get(pictures[body["seq"]])
            if wanted is not None:
                shown = cv2.imread(str(testdata / "images" / pictures[body["seq"]]))
                assert shown is not None
                height, width = shown.shape[:2]
                assert_same(body["results"][name]["detections"], wanted, [width, height] * 2)


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]], most: list[int]) -> None:
    """Every box within 2 pixels, every score within 0.01, nothing more and nothing less.

    The baseline's boxes reach beyond the picture where an object does; ours end at its edge, `most`.
    """
    assert len(found) == len(wanted)
    for expected in wanted:
        close = [
            one
            for one in found
            if one["name"] == expected["name"]
            and np.abs(np.subtract(one["box"], np.clip(expected["xyxy"], 0, most))).max() <= 2
            and abs(one["score"] - expected["score"]) <= 0.01
        ]
        assert close, expected


def test_a_verdict_that_rests_on_random_weights_is_never_ok(
    endpoint: Endpoint, context: Context, tmp_path: Path
) -> None:
    """A trained model beside one of random weights: what both saw is joined, marked, and good for no `ok`."""
    trained, untrained = tmp_path / "tiny.onnx", tmp_path / "zoo.onnx"
    tiny.make(trained)
    untrained.write_bytes(make(Order(kind=find("yolov5n-cls"), size=(64, 64), classes=3)).SerializeToString())
    rules = Rules(ng=["red"], least_score=0.3)
    with whole_line(endpoint, context, tmp_path, {"trained": trained, "untrained": untrained}, rules=rules) as line:
        with Camera("cam1", endpoint=line.line.endpoints.frontend, context=context, deadline=30.0) as camera:
            red = spots(3)
            red[:, :, :2] = 0
            for number, picture in enumerate([spots(1), red, spots(2)]):
                camera.send(picture, encoding="bgr8", timeout=20.0, part=f"p{number}")
            assert camera.flush(20.0)
        line.wait_published(3)
        sessions = desk.listed(line.broker.router, List()).sessions
        assert {one.model: one.random for one in sessions} == {"trained": False, "untrained": True}
        frames = [body for topic, _, body in line.published if topic.startswith("frame/")]
        assert {body["seq"]: body["verdict"] for body in frames} == {0: "incomplete", 1: "ng", 2: "incomplete"}
        for body in frames:
            assert body["missing"] == []
            assert body["results"]["untrained"]["random"] is True
            assert "random" not in body["results"]["trained"]


def test_monitor_frames_stay_fresh_and_reconcile(endpoint: Endpoint, context: Context, tmp_path: Path) -> None:
    with whole_line(endpoint, context, tmp_path, {"slow": Fake(delay=0.02)}, cameras=["cam1:monitor", "cam2"]) as line:
        counts = line.broker.router.counts
        before = {status: counts["tasks_total", "slow", status] for status in ("ok", "dropped")}
        with Camera("cam1", endpoint=line.line.endpoints.frontend, context=context, policy="monitor") as camera:
            for number in range(60):
                camera.send(spots(number), encoding="bgr8", timeout=10.0)
            assert camera.flush(20.0)
            stats = camera.stats
        accepted = counts["accepted_total", "cam1"]
        assert stats.sent == accepted == counts["settled_total", "cam1"]
        joined = counts["tasks_total", "slow", "ok"] - before["ok"]
        line.wait_published(joined)
        assert counts["tasks_total", "slow", "dropped"] - before["dropped"] == accepted - joined
        assert line.report()["accepted"] == 0
    assert [header["seq"] for _, header, _ in line.published] == [None] * joined
    shown = [body["seq"] for _, _, body in line.published]
    assert shown == sorted(set(shown))
    assert stats.sent + stats.superseded == 60


def test_the_frames_of_one_part_are_merged_to_one_verdict(endpoint: Endpoint, context: Context, tmp_path: Path) -> None:
    model = tmp_path / "tiny.onnx"
    tiny.make(model)
    rules = Rules(ng=["red"], least_score=0.3)
    with whole_line(endpoint, context, tmp_path, {"tiny": model}, rules=rules) as line:
        end = line.line.endpoints.frontend
        with (
            Camera("cam1", endpoint=end, context=context, deadline=30.0) as first,
            Camera("cam2", endpoint=end, context=context, deadline=30.0) as second,
        ):
            red = spots(3)
            red[:, :, :2] = 0
            for part, (one, two) in {"good": (spots(1), spots(2)), "bad": (spots(1), red)}.items():
                first.send(one, encoding="bgr8", part=part, timeout=20.0)
                second.send(two, encoding="bgr8", part=part, timeout=20.0)
            first.send(spots(5), part="good", timeout=20.0)
            assert first.flush(20.0)
            assert second.flush(20.0)
            assert first.stats.rejected == {"part_duplicate": 1}
        line.wait_published(6)
    parts = {body["part"]: body for topic, _, body in line.published if topic.startswith("part/")}
    assert {part: (body["verdict"], body["outcome"]) for part, body in parts.items()} == {
        "good": ("ok", "complete"),
        "bad": ("ng", "complete"),
    }
    assert len(parts["good"]["frames"]) == 2
    frames = {(body["camera"], body["part"]): body["verdict"] for topic, _, body in line.published if "frame/" in topic}
    assert frames == {("cam1", "good"): "ok", ("cam2", "good"): "ok", ("cam1", "bad"): "ok", ("cam2", "bad"): "ng"}
