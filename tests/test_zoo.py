"""The zoo against what is published of its models, against files that others exported, and at any size."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.test_workers_cli import ROOT, workers_command
from workers import coco, image, yolo
from workers.engine.onnx import OnnxEngine
from workers.errors import ModelError
from workers.model import Hints, describe
from workers.options import ModelOptions
from workers.placement import Scaling
from workers.runner import Runner
from workers.zoo.catalogue import ARCHITECTURES, find
from workers.zoo.initial import random_values
from workers.zoo.making import Order, make
from workers.zoo.network import Network, Values
from workers.zoo.yolov5 import ANCHORS

#: Name: parameters in millions, FLOPs in 1e9, from the tables in the README of YOLOv5 v7.0.
PUBLISHED = {
    "yolov5n": ("1.9", "4.5"),
    "yolov5s": ("7.2", "16.5"),
    "yolov5m": ("21.2", "49.0"),
    "yolov5l": ("46.5", "109.1"),
    "yolov5x": ("86.7", "205.7"),
    "yolov5n-seg": ("2.0", "7.1"),
    "yolov5s-seg": ("7.6", "26.4"),
    "yolov5m-seg": ("22.0", "70.8"),
    "yolov5l-seg": ("47.9", "147.7"),
    "yolov5x-seg": ("88.8", "265.7"),
    "yolov5n-cls": ("2.5", "0.5"),
    "yolov5s-cls": ("5.4", "1.4"),
    "yolov5m-cls": ("12.9", "3.9"),
    "yolov5l-cls": ("26.5", "8.5"),
    "yolov5x-cls": ("48.1", "15.9"),
}
#: Smallest of each kind, with another number of classes and a small, oblong input.
SMALL = [
    ("yolov5n", (64, 96), 3),
    ("yolov5n-seg", (96, 64), 2),
    ("yolov5n-cls", (64, 64), 5),
    ("mobilenetv2", (64, 96), 4),
]

Run = Callable[[Any], list[Any]]


def runner(model: Any) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda images: list(session.run(None, {"images": images}))


def noise(*shape: int) -> Any:
    return np.random.default_rng(5).random(shape, np.float32)


# --- what is published -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_flops_are_the_published_ones(name: str) -> None:
    kind = find(name)
    net = kind.build()
    assert (f"{net.parameters / 1e6:.1f}", f"{kind.published(net) / 1e9:.1f}") == PUBLISHED[name]


def test_parameters_that_are_published_to_the_last_one() -> None:
    # What YOLOv5 prints when it has fused a model.
    assert find("yolov5n").build().parameters == 1_867_405
    assert find("yolov5s").build().parameters == 7_225_885
    assert find("yolov5m").build().parameters == 21_172_173
    assert find("yolov5l").build().parameters == 46_533_693
    assert find("yolov5x").build().parameters == 86_705_005


def test_mobilenet_is_the_published_one() -> None:
    net = find("mobilenetv2").build()
    # The paper: 3.4 M parameters, 300 M multiply-adds, both cut; torchvision counts two of every batch norm apart.
    assert math.floor(net.parameters / 1e5) == 34
    assert math.floor(net.cost.macs / 1e6) == 300
    assert net.parameters + sum(layer.shape[0] for layer in net.layers if layer.norm) == 3_504_872


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_counted_is_what_is_in_the_graph(name: str) -> None:
    net = find(name).build()
    draft = net.graph.draft().graph
    weights = {constant for layer in net.layers for constant in layer.constants}
    counted = sum(math.prod(one.dims) for one in draft.initializer if one.name in weights)
    assert counted == net.parameters
    assert all(not one.raw_data for one in draft.initializer if one.name in weights)


# --- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "size", "classes"), SMALL)
def test_a_batch_of_three_is_three_single_runs(name: str, size: tuple[int, int], classes: int) -> None:
    run = runner(make(Order(kind=find(name), size=size, classes=classes)))
    images = noise(3, 3, *size)
    together = run(images)
    for row in range(3):
        for whole, single in zip(together, run(images[row : row + 1]), strict=True):
            assert np.allclose(whole[row], single[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "size", "classes"), SMALL)
def test_a_worker_takes_what_the_zoo_makes(name: str, size: tuple[int, int], classes: int, tmp_path: Path) -> None:
    kind = find(name)
    path = tmp_path / "m.onnx"
    path.write_bytes(make(Order(kind=kind, size=size, classes=classes)).SerializeToString())
    model = describe(OnnxEngine.load(path, threads=1).signature, Hints(), "m.onnx")
    assert (model.task, model.size, model.batch, model.fit) == (kind.task, size, None, kind.fit)
    assert model.scaling == kind.scaling
    assert model.names == tuple(f"class-{number}" for number in range(classes))


def test_outputs_are_laid_out_as_ultralytics_exports_them() -> None:
    def outputs(name: str) -> list[list[int]]:
        graph = find(name).build().graph.draft().graph
        return [[one.dim_value for one in value.type.tensor_type.shape.dim][1:] for value in graph.output]

    assert outputs("yolov5n") == [[25200, 85]]
    assert outputs("yolov5n-seg") == [[25200, 117], [32, 160, 160]]
    assert outputs("yolov5n-cls") == outputs("mobilenetv2") == [[1000]]


def blank_values(net: Network) -> dict[str, Values]:
    return {
        layer.name: (np.zeros(layer.shape, np.float32), np.zeros(layer.shape[0], np.float32)) for layer in net.layers
    }


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-seg"])
def test_boxes_are_decoded_as_the_formula_says(name: str) -> None:
    """Every weight is 0, so a head answers its biases everywhere: boxes by the formula, in plain Python."""
    kind = find(name)
    net = kind.build((64, 96), 2)
    values = blank_values(net)
    extra = 32 if kind.task == "segment" else 0
    biases = np.random.default_rng(1).standard_normal((3, 3, 7 + extra)).astype(np.float32)
    for level in range(3):
        values[f"model.24.m.{level}"] = (values[f"model.24.m.{level}"][0], biases[level].ravel())
    found = runner(net.model(values, {}))(noise(1, 3, 64, 96))[0][0]
    row = 0
    for level, stride in enumerate((8, 16, 32)):
        for anchor, sides in enumerate(ANCHORS[level]):
            raw = biases[level, anchor].astype(float)
            squashed = 1 / (1 + np.exp(-raw))
            for y in range(64 // stride):
                for x in range(96 // stride):
                    expected = [
                        (2 * squashed[0] - 0.5 + x) * stride,
                        (2 * squashed[1] - 0.5 + y) * stride,
                        (2 * squashed[2]) ** 2 * sides[0],
                        (2 * squashed[3]) ** 2 * sides[1],
                        *squashed[4:7],
                        *raw[7:],
                    ]
                    assert found[row] == pytest.approx(expected, rel=1e-5, abs=1e-5)
                    row += 1
    assert row == len(found)


@pytest.mark.parametrize(
    ("name", "size"), [("yolov5n", (640, 650)), ("yolov5n-cls", (16, 64)), ("mobilenetv2", (31, 64))]
)
def test_a_size_that_does_not_fit_is_refused(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match=r"sides.*--size"):
        find(name).build(size)


# --- random weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s", "yolov5n-seg", "yolov5n-cls", "mobilenetv2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_weights_answer_what_is_finite_and_of_a_sensible_size(name: str, seed: int) -> None:
    kind = find(name)
    size = (224, 224) if kind.task == "classify" else (320, 320)
    run = runner(make(Order(kind=kind, size=size, seed=seed)))
    clouds = cv2.resize(noise(20, 20, 3), size, interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)[None]
    outputs = run(np.ascontiguousarray((clouds - 0.45) / 0.226 if kind.task == "classify" else clouds))
    assert all(np.isfinite(output).all() for output in outputs)
    if kind.task == "classify":
        assert 0.2 < outputs[0].std() < 5
        return
    scores = np.clip(outputs[0][0, :, 4 : 5 + len(coco.NAMES)], 1e-6, 1 - 1e-6)
    logits = np.log(scores / (1 - scores))
    assert -6 < logits[:, 0].mean() < -3
    assert 0.2 < logits[:, 1:].std() < 3
    assert len(yolo.candidates(outputs[0][0], len(coco.NAMES), 0.25)) < len(scores) / 20


def test_a_seed_makes_the_same_weights_at_any_size_and_another_makes_others() -> None:
    kind = find("yolov5n")
    small, large = (random_values(kind.build(size), 3, Scaling()) for size in ((64, 64), (640, 640)))
    other = random_values(kind.build((64, 64)), 4, Scaling())
    for layer, (weights, biases) in small.items():
        assert np.array_equal(weights, large[layer][0])
        assert np.array_equal(biases, large[layer][1])
        assert not np.array_equal(weights, other[layer][0])


def test_random_weights_say_so() -> None:
    model = make(Order(kind=find("mobilenetv2"), size=(64, 64), classes=2, seed=9))
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["gongwei.weights"] == "random"
    assert said["gongwei.source"] == "mobilenetv2, seed 9"


# --- files of others -------------------------------------------------------------------------------------------------


def same_picture(testdata: Path) -> Any:
    shown = Runner.load(ModelOptions(name="n", source=testdata / "models" / "yolov5n.onnx"), 1)
    batch = np.empty((1, 3, 640, 640), np.float32)
    shown.prepare(image.load(testdata / "images" / "bus.jpg"), batch[0])
    return batch


def filled(testdata: Path, name: str, file: str) -> tuple[list[Any], list[Any], Any]:
    """What the zoo's model and the file answer to a picture, and the file's ONNX."""
    path = testdata / "models" / file
    model, original = make(Order(kind=find(name), weights=path)), onnx.load(path)
    assert "gongwei.weights" not in {entry.key for entry in model.metadata_props}
    batch = same_picture(testdata)
    return runner(model)(batch), runner(original)(batch), original.graph


def test_yolov5n_filled_from_an_export_agrees_with_it(testdata: Path) -> None:
    ours, theirs, _ = filled(testdata, "yolov5n", "yolov5n.onnx")
    assert np.abs(ours[0] - theirs[0]).max() <= 1e-3


def test_yolov5n_seg_filled_from_an_export_agrees_with_it(testdata: Path) -> None:
    """The export came through TensorFlow: its rows run cell by cell, and the places of cells and the anchors were
    rounded to 8 bits with the weights. With those put right it agrees; all but the boxes does as it is."""
    ours, theirs, graph = filled(testdata, "yolov5n-seg", "yolov5n-seg.onnx")
    assert np.abs(ours[1] - theirs[1]).max() <= 1e-3
    constants = {one.name: one for one in graph.initializer}
    end = 0
    for level, (cells, anchors) in enumerate((("sub", "mul_1"), ("sub_1", "mul_8"), ("sub_2", "mul_15"))):
        side, stride = 80 >> level, 8 << level
        start, end = end, end + 3 * side * side
        rows = theirs[0][0, start:end].reshape(side * side, 3, 117).transpose(1, 0, 2).copy()
        places = numpy_helper.to_array(find_constant(constants, cells)).reshape(side * side, 2)
        y, x = np.mgrid[:side, :side]
        rows[..., :2] += (np.stack((x, y), -1).reshape(-1, 2) - 0.5 - places) * stride
        rounded = numpy_helper.to_array(find_constant(constants, anchors)).reshape(3, 1, 2)
        rows[..., 2:4] *= 4 * np.array(ANCHORS[level]).reshape(3, 1, 2) / rounded
        assert np.abs(ours[0][0, start:end] - rows.reshape(-1, 117)).max() <= 1e-3


def find_constant(constants: dict[str, Any], name: str) -> Any:
    return next(one for key, one in constants.items() if key.startswith(f"model/tf_segment/{name}_dequant"))


def test_half_weights_are_taken_as_well(testdata: Path) -> None:
    ours, theirs, _ = filled(testdata, "yolov5n", "yolov5n-fp16.onnx")
    assert np.abs(ours[0] - theirs[0])[..., 4:].max() <= 2e-3
    assert np.abs(ours[0] - theirs[0])[..., :4].max() <= 1


def test_a_file_of_another_architecture_is_refused(testdata: Path) -> None:
    models = testdata / "models"
    with pytest.raises(ModelError, match=r"is no yolov5s: none of its 60 layers is at the place of model.0.conv"):
        make(Order(kind=find("yolov5s"), weights=models / "yolov5n.onnx"))
    with pytest.raises(ModelError, match="is no mobilenetv2"):
        make(Order(kind=find("mobilenetv2"), weights=models / "mobilenetv2.onnx"))  # TensorFlow pads on one side only
    with pytest.raises(ModelError, match="has 80 classes, not 3"):
        make(Order(kind=find("yolov5n"), weights=models / "yolov5n.onnx", classes=3))


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_list() -> None:
    rows = json.loads(workers_command("zoo", "--json").stdout)
    assert [row["name"] for row in rows] == list(ARCHITECTURES)
    assert rows[0]["parameters"] == 1_867_405
    assert "205.7 GFLOPs" in workers_command("zoo").stdout


def test_a_model_is_made_once_found_by_name_and_not_written_over(tmp_path: Path) -> None:
    arguments = ("zoo", "yolov5n", "--weights", "random", "--size", "64x96", "--classes", "2", "--store", str(tmp_path))
    made = workers_command(*arguments, "--json")
    assert made.returncode == 0, made.stderr
    first = (tmp_path / "yolov5n.onnx").read_bytes()
    assert json.loads(made.stdout)["bytes"] == len(first)
    again = workers_command(*arguments)
    assert (again.returncode, "--replace" in again.stderr) == (1, True)
    assert workers_command(*arguments, "--seed", "1", "--replace").returncode == 0
    assert (tmp_path / "yolov5n.onnx").read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["yolov5n.onnx"]
    assert "--name another name's" in again.stderr
    named = workers_command(*arguments, "--name", "other")
    assert named.returncode == 0, named.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.onnx", "yolov5n.onnx"]


def test_a_wrong_word_is_answered_with_what_to_say() -> None:
    for arguments, said, code in (
        (["yolov9"], "it has yolov5n, ", 2),
        (["yolov5n"], "--weights random", 2),
        (["yolov5n", "--weights", "x.pt"], ".onnx or .safetensors", 2),
        (["yolov5n", "--weights", "absent.onnx"], "there is no such file", 1),
        (["yolov5n", "--weights", "random", "--size", "30x30"], "multiples of 32", 2),
        (["yolov5n", "--weights", "random", "--size", "wide"], "--size wide: HEIGHTxWIDTH", 2),
    ):
        told = workers_command("zoo", *arguments)
        assert (told.returncode, said in told.stderr) == (code, True), told.stderr


def test_other_commands_do_not_wait_for_it() -> None:
    code = "import sys, workers.__main__; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
