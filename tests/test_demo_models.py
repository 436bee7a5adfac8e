"""The demo models' bench: what it makes of records, of models with random weights, of the shipped ones if they are
there; the threshold that they are compared with; truth against verdicts."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import workers  # noqa: F401  (before cv2, whose limits it sets)
from broker.line import Model
from broker.wire import Key
from clients.synthetic import SyntheticCamera
from clients.workpiece import CLASSES
from ops.bench import app, threshold
from ops.bench.demo_models import Result, tables
from ops.bench.examination import Examiner, confident, verdict
from ops.bench.grade import grade, make_targets
from ops.bench.speed import Speed
from ops.demo_line import shipped_ng
from ops.training.recipe import RECIPES
from ops.truth import compare
from tests.demo_records import LARGE_CLEAR, SMALL_FAINT, record, write_random
from workers import shipped, tiny
from workers.errors import ModelError
from workers.lookup import find
from workers.options import ModelOptions
from workers.runner import Runner


def test_misses_and_false_alarms_are_counted_by_size_and_contrast() -> None:
    records = [record(), record(said="ng"), record(SMALL_FAINT), record(LARGE_CLEAR, said="ng", seen=True)]
    graded = grade(records)
    assert (graded.alarms["verdict"].hits, graded.alarms["verdict"].count) == (1, 2)
    assert (graded.all.missed["verdict"].hits, graded.all.missed["verdict"].count) == (1, 2)
    assert (graded.accuracy.hits, graded.accuracy.count) == (2, 4)
    assert (graded.box, graded.mask) == ({"dent": 0.0, "hole": 1.0},) * 2
    filled = {(c.size, c.contrast): c.missed["verdict"].hits for c in graded.cells if c.missed["verdict"].count}
    assert filled == {("< 18", "< 20"): 1, ("≥ 28", "≥ 45"): 0}
    assert sum(cell.missed["verdict"].count for cell in graded.cells) == 2
    reached = {target.name: target.reached for target in make_targets(graded, [], 5_000_000)}
    assert not reached["missed defects, joined verdict"] and reached["MB together"]


@pytest.mark.parametrize(("parts", "few"), [(49, "too few: 49 parts, 50 needed"), (50, "")])
def test_a_figure_of_too_few_parts_is_no_verdict(parts: int, few: str) -> None:
    targets = {one.name: one for one in make_targets(grade([record()] * parts), [], 9_000_000)}
    assert targets["accuracy, demo-cls"].few == few
    assert targets["accuracy, demo-cls"].verdict == (few or "reached")
    assert targets["missed defects, joined verdict"].verdict == "too few: 0 defects, 200 needed"
    assert targets["MB together"].verdict == "MISSED"
    assert [targets[name].bound for name in ("accuracy, demo-cls", "MB together")] == ["≥ 0.98", "≤ 8"]


def test_the_tables_say_what_their_figures_are_of() -> None:
    graded = grade([record(), record(said="ng"), record(LARGE_CLEAR, said="ng", seen=True)])
    result = Result(seed=1, grade=graded, speeds=[], size=1, targets=make_targets(graded, [], 1))
    shown = {str(table.title): table for table in tables(result)}
    judges = shown["3 parts, % with Wilson's interval at 95 %"]
    columns = {str(column.header): list(column.cells) for column in judges.columns}
    assert (set(columns["of defects"]), set(columns["of sound parts"])) == ({"1"}, {"2"})
    assert [str(cell) for cell in shown["Targets"].columns[1].cells][:4] == ["≥ 0.95", "≥ 0.9", "≥ 0.98", "≤ 0.005"]


def test_a_slow_model_misses_its_target() -> None:
    graded = grade([record(), record(LARGE_CLEAR, said="ng", seen=True)])
    speeds = [Speed(name=name, seconds=0.02, ratio=0.4) for name in ("yolov5n", "demo-det")]
    missed = [target.name for target in make_targets(graded, speeds, 1) if not target.reached]
    assert [name for name in missed if name.startswith("time")] == ["time ÷ yolov5n's, demo-det"]


def test_only_confident_detections_make_a_part_bad() -> None:
    answer = {"task": "detect", "detections": [{"name": "dent", "score": 0.4, "area": 9.0}]}
    assert verdict({"demo-det": confident(answer, 0.5)}) == "ok"
    assert verdict({"demo-det": confident(answer, 0.4)}) == "ng"
    assert verdict({"demo-cls": {"task": "classify", "classes": [{"name": "bad", "score": 0.6}]}}) == "ng"


# --- the threshold ---------------------------------------------------------------------------------------------------


def test_a_threshold_sees_some_defects_and_misses_many() -> None:
    """What the models are compared with is a fair try: it finds something, and the task is too hard for it."""
    camera = SyntheticCamera(7, defect_rate=1.0, world="train")
    found = [bool(threshold.inspect(camera.part(number).image)) for number in range(40)]
    assert 4 <= sum(found) <= 32


def test_a_threshold_says_nothing_of_an_empty_belt() -> None:
    assert threshold.inspect(np.full((120, 160, 3), 40, np.uint8)) == []


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the shipped names and shapes with random weights: nothing that they say means anything."""
    return write_random(tmp_path_factory.mktemp("models"))


def test_recipes_are_the_shipped_models() -> None:
    assert tuple(recipe.name for recipe in RECIPES) == shipped.NAMES
    assert {name for recipe in RECIPES for name in recipe.names} - {"ok"} == set(shipped.NG)


def test_an_examiner_asks_every_model_about_every_part(random_models: Path) -> None:
    examiner = Examiner(random_models, seed=3)
    records = [examiner.examine(number) for number in range(4)]
    camera = SyntheticCamera(3, defect_rate=0.5)
    assert [bool(one.defects) for one in records] == [camera.has_defect(number) for number in range(4)]
    for one in records:
        assert set(one.bad) == {*shipped.NAMES, "threshold"}
        assert len(one.located) == len(one.defects)
    assert examiner.examine(2).sights == records[2].sights


@pytest.mark.slow
def test_the_bench_measures_models_of_a_folder(random_models: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = [
        "demo-models",
        "--parts",
        "30",
        "--models",
        str(random_models),
        "--processes",
        "1",
        "--report",
        str(report),
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    told = json.loads(report.read_bytes())["result"]
    assert told["grade"]["parts"] == 30
    assert [speed["name"] for speed in told["speeds"]] == ["yolov5n", *shipped.NAMES]
    assert "too few: 30 parts, 50 needed" in result.output


def test_the_bench_says_which_models_are_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo-models", "--models", str(tmp_path)])
    assert result.exit_code == 1
    assert "no file of demo-det, demo-seg, demo-cls" in result.output.replace("\n", " ")


SHIPPED = pytest.mark.skipif(
    any(shipped.path(name) is None for name in shipped.NAMES), reason="the demo models have not been trained yet"
)


@SHIPPED
@pytest.mark.slow
def test_the_shipped_models_know_sound_parts_from_bad_ones() -> None:
    """A small sample of what `gongwei bench demo-models` measures."""
    examiner = Examiner(shipped.FOLDER, seed=99)
    graded = grade([examiner.examine(number) for number in range(60)])
    assert graded.all.missed["verdict"].hits <= 2
    assert graded.alarms["verdict"].hits <= 2
    assert graded.all.missed["threshold"].hits > 2 or graded.alarms["threshold"].hits > 2


@SHIPPED
@pytest.mark.parametrize("name", [*shipped.NAMES, "tiny"])
def test_models_that_come_with_us_say_what_they_compute_in(name: str, tmp_path: Path) -> None:
    tiny.make(tmp_path / "tiny.onnx")
    path = shipped.path(name) or tmp_path / "tiny.onnx"
    assert Runner.load(ModelOptions(name=name, source=path), 1).model.precision == "fp32"


@SHIPPED
def test_the_shipped_models_are_small() -> None:
    assert sum((shipped.FOLDER / f"{name}.onnx").stat().st_size for name in shipped.NAMES) <= 8_000_000


# --- truth -----------------------------------------------------------------------------------------------------------


def test_verdicts_are_held_against_the_truth() -> None:
    said = ["ok", "ng", "ng", "ok", "incomplete"]
    verdicts = {Key("cam1", "0123456789ab", seq): verdict for seq, verdict in enumerate(said)}
    verdicts[Key("cam2", "0123456789ab", 0)] = "ok"
    truth = compare(verdicts, {"cam1": lambda seq: seq in (0, 1)})
    assert truth is not None
    assert (truth.defective, truth.sound) == (2, 3)
    assert (truth.missed, truth.false_alarms, truth.undecided) == (1, 1, 1)
    assert compare(verdicts, {}) is None


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        (list(shipped.NAMES), list(shipped.NG)),
        (["demo-det"], list(CLASSES)),
        (["demo-cls"], ["bad"]),
        ([], []),
    ],
)
def test_models_of_the_package_bring_the_classes_that_make_a_part_bad(words: list[str], classes: list[str]) -> None:
    assert shipped_ng({word: Model(file=str(shipped.FOLDER / f"{word}.onnx")) for word in words}) == classes


def test_other_models_of_their_names_bring_no_classes(tmp_path: Path) -> None:
    package, other = (Model(file=str(folder / "demo-det.onnx")) for folder in (shipped.FOLDER, tmp_path))
    assert shipped_ng({"demo-det": other}) == shipped_ng({"demo-det": package, "own": other}) == []


def test_confidence_is_read_from_the_file(random_models: Path, tmp_path: Path) -> None:
    assert shipped.confidence(random_models / "demo-det.onnx") == 0.4
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 30)
    with pytest.raises(Exception, match="cannot be read"):
        shipped.confidence(broken)


def test_the_records_parts_are_numbered_from_zero(random_models: Path) -> None:
    camera = SyntheticCamera(3, defect_rate=0.5)
    first = next(number for number in itertools.count() if camera.has_defect(number))
    part, examined = camera.part(first), Examiner(random_models, seed=3).examine(first)
    assert [flaw.area for flaw in examined.defects] == [defect.area for defect in part.truth]


def test_a_model_of_the_package_is_found_where_no_other_has_its_name(tmp_path: Path) -> None:
    own = tmp_path / "demo-det.onnx"
    own.touch()
    assert find("demo-det", store=tmp_path) == own
    own.unlink()
    if shipped.path("demo-det") is not None:
        assert find("demo-det", store=tmp_path) == shipped.FOLDER / "demo-det.onnx"
    else:
        with pytest.raises(ModelError, match=re.escape(str(shipped.FOLDER))):
            find("demo-det", store=tmp_path)
