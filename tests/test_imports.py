"""ONNX files brought into the folder of models: real ones keep their answers, and each says all about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.small_graphs import (
    FLAT,
    GEMM,
    answers,
    bring,
    graph,
    node,
    pictures,
    weights,
)
from tests.test_engine_onnx import read_tensor
from workers import exports, image, listing, onnxfile, upgrade
from workers.engine.onnx import OnnxEngine
from workers.errors import EngineError, ModelError
from workers.exports import Order
from workers.model import Hints
from workers.options import ModelOptions
from workers.runner import Runner
from workers.settings import settings


def imported(testdata: Path, name: str, store: Path, hints: Hints | None = None) -> exports.Exported:
    return exports.bring(Order(path=testdata / "models" / f"{name}.onnx", name=name, hints=hints or Hints()), store)


def mobilenet(testdata: Path) -> Hints:
    labels = (testdata / "images" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    return Hints(names=tuple(labels), mean=(127.5,), std=(127.5,), fit="stretch")


def imagenet() -> Hints:
    names = tuple(str(number) for number in range(1000))
    return Hints(names=names, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), fit="crop")


def look(path: Path, picture: Path, max_batch: int = 1) -> dict[str, Any]:
    runner = Runner.load(ModelOptions(name="m", source=path, max_batch=max_batch), 2)
    runner.warm_up()
    return runner.look(image.load(picture))


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-fp16", "yolov5n-seg"])
def test_detectors_find_what_the_baseline_finds(name: str, testdata: Path, tmp_path: Path) -> None:
    found = imported(testdata, name, tmp_path)
    assert found.notes[-1].startswith("any batch")
    assert ("nodes sorted" in found.notes) == (name == "yolov5n-fp16")
    model = onnx.load(found.path)
    onnx.checker.check_model(model)
    assert upgrade.opset(model) == 17
    assert onnxfile.signature(model).input == (None, 3, 640, 640)
    baseline = json.loads((testdata / "baseline_detections.json").read_text(encoding="utf-8"))[f"{name}.onnx"]
    for file, expected in baseline.items():
        picture = image.load(testdata / "images" / file)
        detections = look(found.path, testdata / "images" / file, 2)["detections"]
        assert len(detections) == len(expected)
        for ours, theirs in zip(detections, sorted(expected, key=lambda entry: -entry["score"]), strict=True):
            assert (ours["class"], ours["name"]) == (theirs["cls"], theirs["name"])
            assert ours["score"] == pytest.approx(theirs["score"], abs=0.01)
            inside = np.clip(theirs["xyxy"], 0, [*picture.shape[1::-1]] * 2)
            assert ours["box"] == pytest.approx(inside, abs=2)


@pytest.mark.parametrize(("picture", "expected"), [("cat.bmp", "Egyptian cat"), ("bird.bmp", "chickadee")])
def test_mobilenet_names_the_picture_without_a_flag(
    picture: str, expected: str, testdata: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="--mean, --std and --fit"):
        imported(testdata, "mobilenetv2", tmp_path)
    assert not list(tmp_path.iterdir())
    found = imported(testdata, "mobilenetv2", tmp_path, mobilenet(testdata))
    best, second = look(found.path, testdata / "images" / picture, 3)["classes"][:2]
    assert best["name"] == expected
    assert best["score"] > max(0.7, 2 * second["score"])


def test_shufflenet_answers_what_it_did_in_batches_too(testdata: Path, tmp_path: Path) -> None:
    found = imported(testdata, "shufflenet-v2-12-int8", tmp_path, imagenet())
    assert found.notes == (
        "opset 12 raised to 17",
        "any batch: 3 pictures at once get the answers that each gets alone",
    )
    folder = testdata / "models" / "test_data_set_0"
    picture, published = (read_tensor(folder / name) for name in ("input_0.pb", "output_0.pb"))
    plain = onnxruntime.InferenceSession(testdata / "models" / "shufflenet-v2-12-int8.onnx").run(
        None, {"input": picture}
    )[0]
    (output,) = OnnxEngine.load(found.path, threads=1).infer(np.concatenate([picture, 0 * picture, picture]))
    for row in (0, 2):
        assert np.array_equal(output[row], plain[0])
        # int8 products saturate on processors without VNNI: the published values are theirs, to the last bit.
        assert np.corrcoef(output[row], published.ravel())[0, 1] > 0.9
        assert output[row].argmax() == published.argmax()


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-fp16", "yolov5n-seg", "mobilenetv2", "shufflenet-v2-12-int8"])
def test_three_pictures_at_once_are_three_pictures(name: str, testdata: Path, tmp_path: Path) -> None:
    """Apart from the proof at import, which uses made-up pictures: on real ones, against the file as it came."""
    hints = {"mobilenetv2": mobilenet(testdata), "shufflenet-v2-12-int8": imagenet()}.get(name)
    found = imported(testdata, name, tmp_path, hints)
    runner = Runner.load(ModelOptions(name=name, source=found.path, max_batch=3), 2)
    batch = np.empty((3, 3, *found.model.size), np.float32)
    for row, file in enumerate(("bus.jpg", "zidane.jpg", "eagle.jpg")):
        runner.prepare(image.load(testdata / "images" / file), batch[row])
    together = runner.engine.infer(batch)
    onnx.checker.check_model(onnx.load(found.path))
    original = OnnxEngine.load(testdata / "models" / f"{name}.onnx", threads=2)
    for row in range(3):
        for ours, theirs in zip(together, original.infer(batch[row : row + 1]), strict=True):
            np.testing.assert_allclose(ours[row], theirs[0], rtol=0, atol=1e-4 * float(np.ptp(theirs)))


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    nodes = [*FLAT, node("Gemm", ["flat", "w"], "zero"), node("Log", ["zero"], "out")]
    with pytest.raises(ModelError, match="it answers what is no number"):
        bring(graph(nodes, {"w": 0 * weights(3, 2)}, [1, 2]), tmp_path)
    assert not (tmp_path / "store").exists()


def test_the_file_says_everything_that_was_asked_for(tmp_path: Path) -> None:
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    found = bring(model, tmp_path, confidence=0.4, iou=0.6, licence="our own")
    said = onnxfile.metadata(onnx.load(found.path))
    assert said == {
        "task": "classify",
        "names": "{0: 'a', 1: 'b'}",
        "imgsz": "[8, 8]",
        "gongwei.mean": "0,0,0",
        "gongwei.std": "255,255,255",
        "gongwei.fit": "stretch",
        "gongwei.colours": "rgb",
        "gongwei.precision": "fp32",
        "gongwei.source": "small.onnx",
        "gongwei.source_sha256": onnxfile.sha256(tmp_path / "small.onnx"),
        "gongwei.confidence": "0.4",
        "gongwei.iou": "0.6",
        "license": "our own",
    }
    runner = Runner.load(ModelOptions(name="m", source=found.path), 1)
    assert (runner.confidence, runner.iou) == (0.4, 0.6)


def test_an_input_of_blue_green_red_is_turned_in_the_graph(tmp_path: Path) -> None:
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    found = bring(model, tmp_path, colours="bgr")
    batch = pictures(2)
    alone = [answers(tmp_path / "small.onnx", batch[row : row + 1, ::-1].copy()) for row in range(2)]
    np.testing.assert_allclose(answers(found.path, batch), np.concatenate(alone), rtol=0, atol=1e-6)
    with pytest.raises(ModelError, match="--colours grb: rgb or bgr"):
        exports.colours("grb")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gongwei.max_batch", "0"),
        ("gongwei.max_batch", "many"),
        ("gongwei.max_batch", "99999"),
        ("gongwei.confidence", "high"),
        ("gongwei.confidence", "nan"),
        ("gongwei.iou", "1.5"),
    ],
)
def test_metadata_that_is_no_setting_is_refused(key: str, value: str) -> None:
    with pytest.raises(ModelError, match=rf"m: its metadata says {key} '{value}'"):
        settings({key: value}, "m")


def test_weights_in_a_file_of_their_own_are_brought_along(tmp_path: Path) -> None:
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    path = tmp_path / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="apart.bin", size_threshold=0)
    hints = Hints(names=("a", "b"), mean=(0,), std=(255,), fit="stretch")
    found = exports.bring(Order(path=path, name="apart", hints=hints), tmp_path / "store")
    before = answers(path, pictures(1))
    (tmp_path / "apart.bin").unlink()
    assert np.array_equal(answers(found.path, pictures(1)), before)
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        exports.bring(Order(path=path, name="apart", hints=hints), tmp_path / "store")


@pytest.mark.parametrize("word", [b"Flatten", b"pooled", b"pictures"])
def test_text_that_is_not_utf_8_is_refused(word: bytes, tmp_path: Path) -> None:
    whole = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2]).SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole.replace(word, b"\xbc" * len(word)))
    with pytest.raises(ModelError, match="is not UTF-8"):
        exports.bring(Order(path=path, name="m"), tmp_path / "store")
    (row,) = listing.listed(tmp_path)
    assert "is not UTF-8" in row["error"]


def test_what_onnxruntime_refuses_is_not_brought(tmp_path: Path) -> None:
    model = graph([node("Unheard", ["pictures"], "out")], {}, [1, 2])
    with pytest.raises(EngineError, match="onnxruntime cannot load it"):
        bring(model, tmp_path)
    assert not (tmp_path / "store").exists()
