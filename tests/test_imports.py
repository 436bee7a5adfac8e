"""ONNX files brought into the folder of models: real ones keep their answers, small ones meet each rule and refusal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.test_engine_onnx import read_tensor
from workers import batching, exports, image, listing, onnxfile, tiny, upgrade
from workers.engine.onnx import OnnxEngine
from workers.errors import EngineError, ModelError
from workers.exports import Order
from workers.model import Hints
from workers.options import ModelOptions
from workers.runner import Runner
from workers.settings import Settings, settings

Array = np.ndarray[Any, Any]
SIDE = 8


# --- real files ------------------------------------------------------------------------------------------------------


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


# --- small graphs ----------------------------------------------------------------------------------------------------


def node(kind: str, inputs: Sequence[str], output: str, name: str = "", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [output], name=name, **attributes)


def graph(
    nodes: Sequence[Any], constants: dict[str, Any], output: Sequence[int | str], *, batch: int = 1, opset: int = 17
) -> Any:
    """pictures [batch, 3, 8, 8] -> `out`, of the shape `output`."""
    pictures = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, output)
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(list(nodes), "small", [pictures], [out], weights),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    model.ir_version = 8
    return model


def shapes(*values: int) -> Array:
    return np.array(values, np.int64)


def weights(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


#: Classifiers of two classes, each with one thing that holds the batch.
POOLED = node("GlobalAveragePool", ["pictures"], "pooled")
GEMM = node("Gemm", ["flat", "w"], "out")
CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "reshape": (
        [POOLED, node("Reshape", ["pooled", "s"], "flat"), GEMM],
        {"s": shapes(1, 3), "w": weights(3, 2)},
    ),
    "reshape with a rest": (
        [POOLED, node("Reshape", ["pooled", "s"], "flat"), GEMM],
        {"s": shapes(1, -1), "w": weights(3, 2)},
    ),
    "reshape with allowzero": (
        [POOLED, node("Reshape", ["pooled", "s"], "flat", allowzero=1), GEMM],
        {"s": shapes(1, 3), "w": weights(3, 2)},
    ),
    "reshape that folds the batch away and back": (
        [
            node("Transpose", ["pictures"], "last", perm=[0, 2, 3, 1]),
            node("Reshape", ["last", "s"], "rows"),
            node("MatMul", ["rows", "w"], "mixed"),
            node("Reshape", ["mixed", "t"], "maps"),
            node("ReduceMax", ["maps"], "out", axes=[1], keepdims=0),
        ],
        {"s": shapes(64, 3), "w": weights(3, 2), "t": shapes(1, -1, 2)},
    ),
    "a shape put together": (
        [
            node("Shape", ["pictures"], "all"),
            node("Slice", ["all", "from", "to"], "sides"),
            node("Concat", ["one", "ch", "sides"], "s", axis=0),
            node("Reshape", ["pictures", "s"], "maps"),
            node("ReduceMax", ["maps"], "flat", axes=[2, 3], keepdims=0),
            GEMM,
        ],
        {"from": shapes(2), "to": shapes(4), "one": shapes(1), "ch": shapes(3), "w": weights(3, 2)},
    ),
    "a shape put together of numbers": (
        [
            node("Shape", ["pictures"], "all"),
            node("Slice", ["all", "from", "to"], "sides"),
            node("Unsqueeze", ["number", "axis"], "one"),
            node("Concat", ["one", "ch", "sides"], "s", axis=0),
            node("Reshape", ["pictures", "s"], "maps"),
            node("ReduceMax", ["maps"], "flat", axes=[2, 3], keepdims=0),
            GEMM,
        ],
        {
            "from": shapes(2),
            "to": shapes(4),
            "number": np.array(1, np.int64),
            "axis": shapes(0),
            "ch": shapes(3),
            "w": weights(3, 2),
        },
    ),
    "one shape for two": (
        [
            POOLED,
            node("Reshape", ["pooled", "s"], "flat"),
            node("Reshape", ["w", "s"], "row"),
            node("Mul", ["flat", "row"], "weighted"),
            node("Gemm", ["weighted", "v"], "out"),
        ],
        {"s": shapes(1, 3), "w": weights(3), "v": weights(3, 2)},
    ),
    "resize to a size": (
        [
            node("Resize", ["pictures", "", "", "s"], "large", mode="nearest"),
            node("GlobalMaxPool", ["large"], "pooled"),
            node("Flatten", ["pooled"], "flat"),
            GEMM,
        ],
        {"s": shapes(1, 3, 16, 24), "w": weights(3, 2)},
    ),
    "expand": (
        [
            POOLED,
            node("Expand", ["c", "s"], "spread"),
            node("Mul", ["pooled", "spread"], "weighted"),
            node("Flatten", ["weighted"], "flat"),
            GEMM,
        ],
        {"c": weights(1, 3, 1, 1), "s": shapes(1, 3, 1, 1), "w": weights(3, 2)},
    ),
}
#: As many as the batch of the export was.
OF_FOUR: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "reshape": ([POOLED, node("Reshape", ["pooled", "s"], "flat"), GEMM], {"s": shapes(4, 3), "w": weights(3, 2)}),
    "expand": (
        [*CASES["expand"][0]],
        {"c": weights(1, 3, 1, 1), "s": shapes(4, 3, 1, 1), "w": weights(3, 2)},
    ),
    "tile": (
        [
            POOLED,
            node("Tile", ["c", "s"], "spread"),
            node("Mul", ["pooled", "spread"], "weighted"),
            node("Flatten", ["weighted"], "flat"),
            GEMM,
        ],
        {"c": weights(1, 3, 1, 1), "s": shapes(4, 1, 1, 1), "w": weights(3, 2)},
    ),
    "constant of shape": (
        [
            POOLED,
            node("ConstantOfShape", ["s"], "zeros"),
            node("Sub", ["pooled", "zeros"], "same"),
            node("Flatten", ["same"], "flat"),
            GEMM,
        ],
        {"s": shapes(4, 3, 1, 1), "w": weights(3, 2)},
    ),
}


def bring(model: Any, folder: Path, **said: Any) -> exports.Exported:
    folder.mkdir(exist_ok=True)
    path = folder / "small.onnx"
    onnx.save(model, path)
    hints = Hints(names=("a", "b"), mean=(0,), std=(255,), fit="stretch")
    return exports.bring(Order(path=path, name="small", hints=hints, **said), folder / "store")


def answers(path: Path, pictures: Array) -> Array:
    return OnnxEngine.load(path, threads=1).infer(pictures)[0].copy()


def pictures(count: int) -> Array:
    return np.random.default_rng(2).random((count, 3, SIDE, SIDE), np.float32)


@pytest.mark.parametrize(
    ("case", "batch"),
    [pytest.param(case, 1, id=name) for name, case in CASES.items()]
    + [pytest.param(case, 4, id=f"{name}, of four") for name, case in OF_FOUR.items()],
)
def test_the_batch_is_freed(case: tuple[list[Any], dict[str, Any]], batch: int, tmp_path: Path) -> None:
    nodes, constants = case
    model = graph(nodes, constants, [batch, 2], batch=batch)
    onnx.checker.check_model(model)
    found = bring(model, tmp_path)
    assert found.notes == ("any batch: 3 pictures at once get the answers that each gets alone",)
    batch_of_five = pictures(5)
    alone = [answers(tmp_path / "small.onnx", batch_of_five[row : row + 1]) for row in range(5)]
    np.testing.assert_allclose(answers(found.path, batch_of_five), np.concatenate(alone), rtol=0, atol=1e-6)
    assert settings(onnxfile.metadata(onnx.load(found.path)), "") == Settings()
    onnx.checker.check_model(onnx.load(found.path), full_check=True)


#: Models that take one picture at a time, and what says so.
FLAT = [POOLED, node("Flatten", ["pooled"], "flat")]
MIXED = [
    *FLAT,
    node("ReduceMean", ["flat"], "mean", axes=[0]),
    node("Add", ["flat", "mean"], "sum"),
    node("Gemm", ["sum", "w"], "out"),
]
JOINED = [*FLAT, node("Concat", ["flat", "c"], "long", axis=1, name="join"), node("Gemm", ["long", "w"], "out")]
HELD: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "pictures mixed with each other": (MIXED, {"w": weights(3, 2)}, "of its spread from the file's own"),
    "a constant row joined to every picture": (JOINED, {"c": weights(1, 3), "w": weights(6, 2)}, "'join'"),
    "the same answer to everything": ([*FLAT, GEMM], {"w": 0 * weights(3, 2)}, "it answers the same to every picture"),
}


@pytest.mark.parametrize(("nodes", "constants", "reason"), HELD.values(), ids=HELD)
def test_what_cannot_be_proved_takes_one_picture_at_a_time(
    nodes: list[Any], constants: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = bring(graph(nodes, constants, [1, 2]), tmp_path)
    assert found.notes[-1].startswith("at most 1 at once: ")
    model = onnx.load(found.path)
    said = settings(onnxfile.metadata(model), "")
    assert said.max_batch == 1
    assert reason in said.reason
    assert onnxfile.signature(model).input[0] == 1, "the file is as it was"
    runner = Runner.load(ModelOptions(name="m", source=found.path, max_batch=4), 1)
    assert runner.max_batch == 1
    (row,) = listing.listed(tmp_path / "store")
    assert (row["max_batch"], row["max_batch_reason"]) == (1, said.reason)


def test_an_open_batch_is_put_to_the_proof_too(tmp_path: Path) -> None:
    model = graph(MIXED, {"w": weights(3, 2)}, ["n", 2])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    found = bring(model, tmp_path)
    assert Runner.load(ModelOptions(name="m", source=found.path, max_batch=4), 1).max_batch == 1


def test_a_fixed_batch_that_cannot_be_freed_is_kept_where_its_rows_are_pictures(tmp_path: Path) -> None:
    same = np.repeat(weights(1, 3), 4, axis=0)
    found = bring(graph(JOINED, {"c": same, "w": weights(6, 2)}, [4, 2], batch=4), tmp_path)
    assert found.notes[-1].startswith("at most 4 at once: ")
    assert Runner.load(ModelOptions(name="m", source=found.path, max_batch=9), 1).max_batch == 4
    # Rows that differ by their place, not only by their picture, are no answers in a batch.
    placed = bring(graph(JOINED, {"c": weights(4, 3), "w": weights(6, 2)}, [4, 2], batch=4), tmp_path / "placed")
    assert Runner.load(ModelOptions(name="m", source=placed.path, max_batch=9), 1).max_batch == 1


def test_what_was_kept_once_is_tried_again(tmp_path: Path) -> None:
    """An import of what an import wrote: nothing of the first one's limit is left."""
    good = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    helper.set_model_props(good, Settings(max_batch=1, reason="old", confidence=0.4, iou=0.6).written())
    assert settings(onnxfile.metadata(onnx.load(bring(good, tmp_path).path)), "") == Settings(confidence=0.4, iou=0.6)


def test_random_weights_stay_known_as_such(tmp_path: Path) -> None:
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2])
    helper.set_model_props(model, {"gongwei.weights": "random"})
    assert bring(model, tmp_path).model.random
    (row,) = listing.listed(tmp_path / "store")
    assert row["weights"] == "random"


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    nodes = [*FLAT, node("Gemm", ["flat", "w"], "zero"), node("Log", ["zero"], "out")]
    with pytest.raises(ModelError, match="it answers what is no number"):
        bring(graph(nodes, {"w": 0 * weights(3, 2)}, [1, 2]), tmp_path)
    assert not (tmp_path / "store").exists()


REFUSED: dict[str, tuple[list[Any], dict[str, Any], list[int | str], str]] = {
    "no factor": (
        [node("Pad", ["pictures", "p"], "odd"), node("Resize", ["odd", "", "", "s"], "out", name="r")],
        {"p": shapes(0, 0, 0, 0, 0, 0, -1, -1), "s": shapes(1, 3, 31, 7)},
        [1, 3, 31, 7],
        r"r: Resize from \[1, 3, 7, 7\] to \[1, 3, 31, 7\]: no factor gives exactly that",
    ),
    "resize of an unknown shape": (
        [node("Unheard", ["pictures"], "what", domain="else"), node("Resize", ["what", "", "", "s"], "out", name="r")],
        {"s": shapes(1, 3, 16, 16)},
        [1, 3, 16, 16],
        "r: Resize .* whose shape is not known",
    ),
    "dimensions of 0": (
        [
            node("Slice", ["pictures", "z", "z", "s"], "none"),
            node("Reshape", ["none", "t"], "out", name="r", allowzero=1),
        ],
        {"z": shapes(0), "s": shapes(1), "t": shapes(1, 0, 64)},
        [1, 0, 64],
        "r: Reshape .*dimensions of 0",
    ),
    "an output without the batch": (
        [node("Squeeze", ["pictures", "s"], "out")],
        {"s": shapes(0)},
        [3, 8, 8],
        r"output out is \[3, 8, 8\]: its first dimension is not the batch",
    ),
}


@pytest.mark.parametrize(("nodes", "constants", "output", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_holds_the_batch_is_named(
    nodes: list[Any], constants: dict[str, Any], output: list[int | str], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        batching.freed(graph(nodes, constants, output))


# --- tidying ---------------------------------------------------------------------------------------------------------


def test_nodes_are_sorted_named_and_weights_are_no_inputs(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["flat", "w", "c"], "out"),
        node("Flatten", ["pooled"], "flat", "same"),
        node("Relu", ["pictures"], "r", "same"),
        node("GlobalAveragePool", ["r"], "pooled", "Gemm_1"),
    ]
    model = graph(nodes, {"w": weights(3, 2), "c": np.zeros(2, np.float32)}, [1, 2], opset=9)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2]))
    model.ir_version = 3
    found = bring(model, tmp_path)
    assert found.notes[:2] == ("nodes sorted", "opset 9 raised to 17")
    written = onnx.load(found.path)
    onnx.checker.check_model(written, full_check=True)
    assert [one.op_type for one in written.graph.node] == ["Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    names = [one.name for one in written.graph.node]
    assert len(set(names)) == 4
    assert all(names)
    assert [one.name for one in written.graph.input] == ["pictures"]
    assert (upgrade.opset(written), written.ir_version) == (17, 8)


def test_what_a_branch_needs_comes_before_it() -> None:
    branch = helper.make_graph(
        [node("Identity", ["late"], "chosen")],
        "b",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("If", ["yes"], "out", then_branch=branch, else_branch=branch),
        node("Relu", ["pictures"], "late"),
    ]
    tidy = upgrade.tidied(graph(nodes, {"yes": np.array(True)}, [1, 3, 8, 8]))
    assert [one.op_type for one in tidy.graph.node] == ["Relu", "If"]


def test_a_circle_is_refused() -> None:
    nodes = [node("Add", ["pictures", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["b"], "out")]
    with pytest.raises(ModelError, match="in a circle"):
        upgrade.tidied(graph(nodes, {}, [1, 3, 8, 8]))


def test_a_sorted_graph_stays_as_it_is_and_late_versions_are_lowered() -> None:
    model = graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2], opset=19)
    model.ir_version = 13
    tidy = upgrade.tidied(model)
    assert [one.op_type for one in tidy.graph.node] == [one.op_type for one in model.graph.node]
    assert tidy.ir_version == upgrade.LATEST_IR
    assert upgrade.raised(tidy) is tidy


def test_an_opset_that_cannot_be_raised_is_kept_with_its_reason(tmp_path: Path) -> None:
    """Between ThresholdedRelu's versions 1 and 10, onnx knows no way."""
    nodes = [node("ThresholdedRelu", ["pictures"], "r", alpha=0.1), node("GlobalAveragePool", ["r"], "pooled"),
             node("Flatten", ["pooled"], "flat"), node("Gemm", ["flat", "w", "c"], "out")]  # fmt: skip
    constants = {"w": weights(3, 2), "c": np.zeros(2, np.float32)}
    found = bring(graph(nodes, constants, [1, 2], opset=9), tmp_path)
    assert found.notes[0].startswith("opset 9 kept, so that later steps (fp16, int8) may refuse it: ")
    assert found.notes[1].startswith("any batch")
    assert upgrade.opset(onnx.load(found.path)) == 9


# --- what is written into the file -----------------------------------------------------------------------------------


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


# --- the list --------------------------------------------------------------------------------------------------------


def test_the_list_tells_what_a_file_is_and_what_it_cannot_tell(tmp_path: Path) -> None:
    half = graph(
        [node("Cast", ["w"], "full", to=TensorProto.FLOAT), *FLAT, node("Gemm", ["flat", "full"], "out")],
        {"w": weights(3, 2).astype(np.float16)},
        [1, 2],
    )
    bring(half, tmp_path)
    kept = tmp_path / "store"
    (kept / "broken.onnx").write_bytes(b"no model")
    onnx.save(half, kept / "raw.onnx")
    onnx.save(tiny.build(), kept / "two.onnx")
    flat = tiny.build()
    del flat.graph.input[0].type.tensor_type.shape.dim[3]
    onnx.save(flat, kept / "flat.onnx")
    (kept / "No name.onnx").touch()
    (kept / "notes.txt").touch()
    broken, flat_row, raw, small, two = listing.listed(kept)
    assert "needs one input [batch, 3, height, width]" in flat_row["error"]
    assert (two["task"], two["classes"], two["max_batch"], two["licence"]) == ("detect", 4, None, "")
    assert "cannot be read as ONNX" in broken["error"]
    assert "--mean" in raw["error"]
    told = {key: small[key] for key in ("task", "size", "classes", "max_batch", "precision", "weights", "source")}
    assert told == {
        "task": "classify",
        "size": [8, 8],
        "classes": 2,
        "max_batch": None,
        "precision": "fp16",
        "weights": "file's",
        "source": "small.onnx",
    }
    assert small["bytes"] == (kept / "small.onnx").stat().st_size
    assert listing.table([broken, raw, small, two]).row_count == 4
    assert list(listing.listed(tmp_path / "nowhere")) == []
