"""The demo models in fp16 and int8: made on the spot, examined like the fp32 ones, held against them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import workers  # noqa: F401  (before cv2, whose limits it sets)
from clients.synthetic import SyntheticCamera
from ops.bench import app, quantised
from ops.bench.demo_models import bench, tables
from ops.bench.examination import Examiner
from ops.bench.grade import grade
from tests.demo_records import LARGE_CLEAR, record, write_random
from workers import image, onnxfile, shipped
from workers.metadata import PRECISION
from workers.settings import CONFIDENCE_KEY


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the shipped names and shapes with random weights: nothing that they say means anything."""
    return write_random(tmp_path_factory.mktemp("models"))


def test_a_fall_below_fp32_is_held_against_its_target() -> None:
    seen, missed = (grade([record(), record(LARGE_CLEAR, said="ng", seen=one)]) for one in (True, False))
    targets = {one.name: one for one in quantised.make_targets(seen, {"fp16": seen, "int8": missed})}
    assert len(targets) == 6
    assert targets["mAP50 of boxes, demo-det, falls by, fp16"].reached
    fallen = targets["mAP50 of boxes, demo-det, falls by, int8"]
    assert (fallen.reached, fallen.measured, fallen.wanted) == (False, 1.0, 0.03)
    assert quantised.make_targets(seen, {}) == []


def test_calibration_draws_the_training_world(tmp_path: Path) -> None:
    quantised.draw(tmp_path, 2)
    camera = SyntheticCamera(quantised.CALIBRATION_SEED, defect_rate=0.5, world="train")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    for number, file in enumerate(files):
        assert np.array_equal(image.load(file), camera.part(number).image)


def test_models_are_quantised_on_the_spot(random_models: Path, tmp_path: Path) -> None:
    folders = dict(quantised.make(random_models, tmp_path, count=2))
    assert list(folders) == ["fp16", "int8"]
    for precision, folder in folders.items():
        for name in shipped.NAMES:
            said = onnxfile.metadata(onnxfile.load(folder / f"{name}.onnx"))
            assert (said[PRECISION], said[CONFIDENCE_KEY]) == (precision, "0.4")
        Examiner(folder, seed=3).examine(0)


@pytest.mark.slow
def test_the_bench_compares_precisions(random_models: Path) -> None:
    done: list[int] = []
    result = bench(random_models, 4, done.append, processes=1, calibration=2)
    assert done == list(range(1, 13))
    assert {name: one.parts for name, one in result.precisions.items()} == {"fp16": 4, "int8": 4}
    assert sum("falls by" in target.name for target in result.targets) == 6
    (table,) = [one for one in tables(result) if one.title == "The same parts in other precisions"]
    assert list(table.columns[0].cells) == ["fp32", "fp16", "int8"]


def test_the_bench_says_of_models_that_are_not_fp32(random_models: Path, tmp_path: Path) -> None:
    made = dict(quantised.make(random_models, tmp_path, count=1))["int8"]
    words = ["demo-models", "--parts", "1", "--models", str(made), "--processes", "1", "--precisions"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "is of int8 already" in result.output.replace("\n", " ")
