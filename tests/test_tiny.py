from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import tiny
from workers.image import Picture
from workers.options import ModelOptions
from workers.runner import Runner

COLOURS = {"white": (255, 255, 255), "red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    tiny.make(path)
    return Runner.load(ModelOptions(name="tiny", source=path, max_batch=4), 1)


def scene(*spots: tuple[int, int, int, int, str]) -> Picture:
    """A dark picture of 480 x 640 with bright rectangles (x, y, width, height, colour)."""
    picture = np.full((480, 640, 3), 40, np.uint8)
    for x, y, width, height, colour in spots:
        picture[y : y + height, x : x + width] = COLOURS[colour]
    return picture


def found(runner: Runner, picture: Picture) -> list[dict[str, Any]]:
    detections: list[dict[str, Any]] = runner.look(picture)["detections"]
    return sorted(detections, key=lambda entry: float(entry["box"][0]))


def test_the_file_is_valid_and_always_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "deep" / "b.onnx"
    tiny.make(first)
    tiny.make(second)
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) < 50_000
    onnx.checker.check_model(onnx.load(first), full_check=True)


def test_it_is_a_detector_of_four_colours(runner: Runner) -> None:
    assert runner.model.task == "detect"
    assert runner.model.names == tiny.NAMES
    assert (runner.model.size, runner.model.batch, runner.max_batch) == ((160, 160), None, 4)


def test_spots_are_found_with_place_and_colour(runner: Runner) -> None:
    spots = [
        (40, 60, 64, 48, "blue"),
        (200, 300, 48, 80, "white"),
        (360, 100, 80, 80, "red"),
        (520, 400, 64, 32, "green"),
    ]
    detections = found(runner, scene(*spots))
    assert [entry["name"] for entry in detections] == [spot[4] for spot in spots]
    for entry, (x, y, width, height, _) in zip(detections, spots, strict=True):
        assert entry["box"] == pytest.approx([x, y, x + width, y + height], abs=12)
        assert entry["score"] > 0.5


def test_nothing_is_found_where_nothing_is_bright(runner: Runner) -> None:
    assert found(runner, scene()) == []
    assert found(runner, np.full((300, 700, 3), 150, np.uint8)) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(40, 500), st.integers(40, 380), st.sampled_from(list(COLOURS)))
def test_one_spot_is_one_detection(runner: Runner, x: int, y: int, colour: str) -> None:
    (entry,) = found(runner, scene((x, y, 56, 56, colour)))
    assert entry["name"] == colour
    assert entry["box"] == pytest.approx([x, y, x + 56, y + 56], abs=12)


def test_rows_of_a_batch_are_those_of_single_pictures(runner: Runner) -> None:
    batch = np.random.default_rng(0).random((4, 3, 160, 160), np.float32)
    together = runner.engine.infer(batch)[0].copy()
    for row in range(4):
        assert np.allclose(runner.engine.infer(batch[row : row + 1])[0][0], together[row], atol=1e-4)
