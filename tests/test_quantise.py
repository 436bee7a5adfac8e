"""Models in fp16 and int8: what is rewritten and what not, and that they find what the fp32 model finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import zmq
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import free_port
from tests.darknet.cases import NEW_COORDS
from tests.darknet.noise import weight_file
from tests.stepwise import stepwise
from tests.test_worker import FakeBroker
from tests.test_workers_cli import started, workers_command
from workers import image
from workers.engine.onnx import OnnxEngine
from workers.errors import ModelError
from workers.metadata import PRECISION, Precision
from workers.options import ModelOptions
from workers.precision.calibration import histogram, pictures
from workers.precision.conversion import convert
from workers.precision.entropy import BINS, threshold
from workers.precision.heads import heads
from workers.precision.int8 import rounded
from workers.precision.wanted import Wanted
from workers.runner import Runner
from workers.zoo.catalogue import find
from workers.zoo.cfg import parse
from workers.zoo.darknet import Detector
from workers.zoo.making import Order, make
from workers.zoo.plan import plan

#: The smallest of each kind, at a small, oblong input.
SMALL = {
    "yolov5n": (64, 96),
    "yolov5n-seg": (96, 64),
    "yolov5n-cls": (64, 64),
    "mobilenetv2": (64, 96),
}
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
PHOTOS = ("bus.jpg", "eagle.jpg", "person.jpg", "zidane.jpg")
EXPORTS = ("yolov5n", "yolov5n-seg")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures: blurred noise."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for number in range(4):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (80, 120, 3), np.uint8), (0, 0), 1 + number)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.normalize(noise, noise, 0, 255, cv2.NORM_MINMAX))
    return folder


def small(name: str) -> Any:
    return make(Order(kind=find(name), size=SMALL[name], classes=3))


def converted(model: Any, precision: Precision, folder: Path) -> Any:
    return convert(model, Wanted(precision, folder if precision == "int8" else None))


def run(model: Any, batch: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made: list[Any] = session.run(None, {session.get_inputs()[0].name: batch})
    return made


def types(model: Any) -> dict[str, int]:
    """The element type of every value of a model."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    told = {one.name: one.type.tensor_type.elem_type for one in values}
    return told | {one.name: one.data_type for one in graph.initializer}


# --- structure -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_heads_are_what_the_zoo_calls_so(name: str) -> None:
    """By the names of the zoo's nodes; the Concat without a scope joins the levels."""
    nodes = small(name).graph.node
    scopes = {
        "yolov5n": ("model.24.", "output0/"),
        "yolov5n-seg": ("model.24.m.", *(f"model.24.{level}/" for level in range(3)), "model.24.proto.cv3", "output"),
        "yolov5n-cls": ("model.9.linear", "output0/"),
        "mobilenetv2": ("classifier", "output0/"),
    }[name]
    joined = [node.name for node in nodes if node.op_type == "Concat" and "/" not in node.name][-1:]
    expected = {node.name for node in nodes if node.name.startswith(scopes)}
    found = {nodes[place].name for place in heads(small(name).graph)}
    assert found == expected | set(joined if find(name).task != "classify" else [])
    weighted = [node.op_type for node in nodes if node.name in found and node.op_type in ("Conv", "Gemm")]
    assert len(weighted) == {"yolov5n": 3, "yolov5n-seg": 4}.get(name, 1)


def test_heads_are_what_darknet_decodes(tmp_path: Path) -> None:
    """The decoding is all of, and only, `*_yolo/` and `output/`; before it is one convolution for each head."""
    (tmp_path / "a.cfg").write_text(NEW_COORDS, encoding="utf-8")
    network = plan(parse(NEW_COORDS, ""))
    (tmp_path / "a.weights").write_bytes(weight_file(network, 1, np.ones(len(network.layers), np.float32)))
    nodes = Detector.load(tmp_path / "a.cfg", tmp_path / "a.weights").model({}).graph
    found = [nodes.node[place] for place in heads(nodes)]
    decoded = [node for node in found if "_yolo/" in node.name or node.name.startswith("output/")]
    rest = [node for node in found if node not in decoded]
    everything = [one.name for one in nodes.node if "_yolo/" in one.name or one.name.startswith("output/")]
    assert sorted(node.name for node in decoded) == sorted(everything)
    assert sum(node.op_type == "Conv" for node in rest) == len(network.heads)


def test_the_mean_of_a_distribution_belongs_to_the_decoding() -> None:
    """YOLOv8 decodes a side by a Softmax and a convolution of 16 fixed numbers that make one."""
    weights = {"inner": (8, 3, 3, 3), "head": (16, 8, 1, 1), "mean": (1, 16, 1, 1)}
    constants = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    nodes = [
        helper.make_node("Conv", ["images", "inner"], ["a"]),
        helper.make_node("Conv", ["a", "head"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "mean"], ["d"]),
    ]
    assert heads(helper.make_graph(nodes, "x", [], [], constants)) == {1, 2, 3}


@pytest.mark.parametrize("name", SMALL)
def test_fp16_ends_before_the_heads(name: str) -> None:
    model = small(name)
    made = convert(model, Wanted("fp16"))
    stay = {model.graph.node[place].name for place in heads(model.graph)}
    told = types(made)
    for node in made.graph.node:
        kinds = {told[one] for one in (*node.input, *node.output) if one} & {TensorProto.FLOAT, TensorProto.FLOAT16}
        if node.name in stay:
            assert kinds == {TensorProto.FLOAT}, node.name
        elif node.op_type in ("Conv", "Gemm"):
            assert kinds == {TensorProto.FLOAT16}, node.name
    casts = [node for node in made.graph.node if node.op_type == "Cast"]
    assert 2 <= len(casts) <= 1 + 4, "one after the input, one before each head"
    ends = [*made.graph.input, *made.graph.output]
    assert {one.type.tensor_type.elem_type for one in ends} == {TensorProto.FLOAT}
    assert [one.name for one in ends] == [one.name for one in (*model.graph.input, *model.graph.output)]


@pytest.mark.parametrize("name", SMALL)
def test_int8_is_what_tensorrt_takes(name: str, drawn: Path) -> None:
    model = small(name)
    made = convert(model, Wanted("int8", drawn))
    stay = {model.graph.node[place].name for place in heads(model.graph)}
    constants = {one.name: numpy_helper.to_array(one) for one in made.graph.initializer}
    makers = {node.output[0]: node for node in made.graph.node}
    quantised = 0
    for node in made.graph.node:
        sources = [makers.get(one) for one in node.input]
        behind = [one is not None and one.op_type == "DequantizeLinear" for one in sources]
        if node.op_type in ("Conv", "Gemm") and node.name not in stay:
            assert behind[:2] == [True, True] and not any(behind[2:]), node.name
            quantised += 1
        elif node.op_type != "DequantizeLinear":
            assert not any(behind), f"{node.name} looks at int8"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not constants[node.input[2]].any() and constants[node.input[2]].dtype == np.int8
    assert quantised == sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node) - len(
        [node for node in model.graph.node if node.name in stay and node.op_type in ("Conv", "Gemm")]
    )
    assert not any(one.dtype == np.int32 for one in constants.values())
    for node in made.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            small_weights, scales = constants[node.input[0]], constants[node.input[1]]
            axis = next(one.i for one in node.attribute if one.name == "axis")
            assert scales.shape == (small_weights.shape[axis],) and small_weights.dtype == np.int8
            assert small_weights.min() >= -127


def test_weights_are_rounded_channel_by_channel() -> None:
    weights = np.array([[0.5, -1.0], [100.0, 3.0], [0.0, 0.0]], np.float32)
    for axis, table in ((0, weights), (1, weights.T)):
        made, scales = rounded(np.ascontiguousarray(table), axis)
        again = made * scales.reshape((-1, 1) if axis == 0 else (1, -1))
        assert np.all(np.abs(again - table) <= scales.reshape((-1, 1) if axis == 0 else (1, -1)) / 2 + 1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_of_three_is_three_single_runs(precision: Precision, drawn: Path) -> None:
    made = converted(small("yolov5n-seg"), precision, drawn)
    batch = np.random.default_rng(1).random((3, 3, *SMALL["yolov5n-seg"]), np.float32)
    together = run(made, batch)
    for row in range(3):
        for whole, alone in zip(together, run(made, batch[row : row + 1]), strict=True):
            np.testing.assert_allclose(whole[row], alone[0], atol=1e-3)


def test_a_single_inner_layer_looks_at_the_picture_alone(drawn: Path) -> None:
    """Then no value inside of the model has a range to learn."""
    weights = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "weights")
    last = numpy_helper.from_array(np.ones((3, 2), np.float32), "last")
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "last"], ["d"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    scores = helper.make_tensor_value_info("d", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph(nodes, "x", [images], [scores], [weights, last])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"task": "classify", "names": "['a', 'b']"})
    made = convert(model, Wanted("int8", drawn))
    assert [node.op_type for node in made.graph.node].count("QuantizeLinear") == 1


def test_constants_beyond_fp16_keep_their_nodes_fp32() -> None:
    weights = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "weights")
    large = numpy_helper.from_array(np.array(1e6, np.float32), "large")
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["a"]),
        helper.make_node("Mul", ["a", "large"], ["b"]),
        helper.make_node("Div", ["b", "large"], ["c"]),
        helper.make_node("Conv", ["c", "weights"], ["d"]),
    ]
    shape: list[str | int | None] = ["batch", 4, 8, 8]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("images", "d")]
    graph = helper.make_graph(nodes, "x", ends[0], ends[1], [weights, large])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    batch = np.random.default_rng(0).random((1, 4, 8, 8), np.float32)
    made = stepwise(convert(model, Wanted("fp16")), batch)[0]
    np.testing.assert_allclose(made, run(model, batch)[0], rtol=2e-3)


# --- entropy ---------------------------------------------------------------------------------------------------------


def test_a_few_outliers_are_clipped_and_no_more() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=2_000_000)).astype(np.float32)
    values[:3] = 100.0
    reach = threshold(histogram(values, 100.0), 100.0)
    assert np.quantile(values, 1 - 1e-5) <= reach < 10


def test_an_even_spread_is_not_clipped() -> None:
    assert threshold(np.ones(BINS), 7.0) == pytest.approx(7.0)
    assert threshold(np.zeros(BINS), 0.0) == 0.0


def test_with_as_many_bins_as_steps_nothing_is_clipped() -> None:
    assert threshold(np.arange(128, 0, -1.0), 3.0) == 3.0


# --- against fp32 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPORTS)
def test_fp16_finds_what_fp32_finds(name: str, testdata: Path) -> None:
    path = testdata / "models" / f"{name}.onnx"
    runner, made = Runner.load(ModelOptions(name=name, source=path), 1), convert(onnx.load(path), Wanted("fp16"))
    for photo in PHOTOS:
        picture = image.load(testdata / "images" / photo)
        batch = np.empty((1, 3, *runner.model.size), np.float32)
        placement = runner.prepare(picture, batch[0])
        whole = runner.interpret(runner.engine.infer(batch), 0, placement)["detections"]
        halves = runner.interpret(stepwise(made, batch), 0, placement)["detections"]
        assert [one["name"] for one in halves] == [one["name"] for one in whole]
        for one, other in zip(whole, halves, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=0.005)
            assert one["box"] == pytest.approx(other["box"], abs=0.5)


@pytest.mark.parametrize("name", EXPORTS)
def test_int8_finds_what_fp32_finds(name: str, testdata: Path, tmp_path: Path) -> None:
    path, target = testdata / "models" / f"{name}.onnx", tmp_path / "int8.onnx"
    target.write_bytes(convert(onnx.load(path), Wanted("int8", testdata / "images")).SerializeToString())
    whole, small = (Runner.load(ModelOptions(name=name, source=one), 1) for one in (path, target))
    for photo in PHOTOS:
        picture = image.load(testdata / "images" / photo)
        found = small.look(picture)["detections"]
        for one in whole.look(picture)["detections"]:
            if one["score"] >= 0.5:
                same = [other for other in found if other["name"] == one["name"]]
                assert max((overlap(one["box"], other["box"]) for other in same), default=0.0) >= 0.8, (photo, one)


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


# --- TensorRT --------------------------------------------------------------------------------------------------------


def published(testdata: Path) -> Iterator[tuple[str, Any]]:
    for name in (*EXPORTS, "mobilenetv2"):
        model = onnx.load(testdata / "models" / f"{name}.onnx")
        if name == "mobilenetv2":
            said = {"task": "classify", "names": str(dict(enumerate(map(str, range(1001)))))}
            helper.set_model_props(model, said)
        yield name, model
    folder = testdata / "models"
    detector = Detector.load(folder / "yolo-fastest-1.1.cfg", folder / "yolo-fastest-1.1.weights")
    yield "yolo-fastest", detector.model({"task": "detect", "gongwei.fit": "stretch"})


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SMALL)
def test_tensorrt_rtx_takes_the_zoos(name: str, precision: Precision, drawn: Path) -> None:
    built(name, converted(small(name), precision, drawn))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensorrt_rtx_takes_published_ones(precision: Precision, drawn: Path, testdata: Path) -> None:
    for name, model in published(testdata):
        built(name, converted(model, precision, drawn))


def built(name: str, model: Any) -> None:
    """Parse the model, and build a plan of it for batches from 1 to 4; needs no GPU."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed: pip install '.[rtx]'")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(model.SerializeToString())
    assert parsed, (name, [str(parser.get_error(number)) for number in range(parser.num_errors)])
    config, images = builder.create_builder_config(), network.get_input(0)
    if images.shape[0] < 0:
        profile = builder.create_optimization_profile()
        profile.set_shape(images.name, *((count, *tuple(images.shape)[1:]) for count in (1, 3, 4)))
        config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None, name


# --- refusals and the command ----------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_refused(drawn: Path, tmp_path: Path) -> None:
    model = small("mobilenetv2")
    with pytest.raises(ModelError, match="is of fp16 already"):
        convert(convert(model, Wanted("fp16")), Wanted("int8", drawn))
    with pytest.raises(ModelError, match="is of int8 already"):
        convert(convert(model, Wanted("int8", drawn)), Wanted("fp16"))
    with pytest.raises(ModelError, match="needs --calibration FOLDER"):
        Wanted("int8")
    with pytest.raises(ModelError, match="takes none"):
        Wanted("fp16", drawn)
    with pytest.raises(ModelError, match="is for --precision int8; say that, too"):
        Wanted(calibration=drawn)
    with pytest.raises(ModelError, match="has no picture"):
        convert(model, Wanted("int8", tmp_path))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ModelError, match=r"broken\.jpg"):
        convert(model, Wanted("int8", tmp_path))
    with pytest.raises(ModelError, match="cannot be read"):
        pictures(tmp_path / "absent")


def test_the_command_writes_a_copy_that_says_what_it_is(drawn: Path, tmp_path: Path) -> None:
    source = tmp_path / "parts.onnx"
    source.write_bytes(small("yolov5n").SerializeToString())
    folder = ("--store", str(tmp_path))
    first = workers_command("quantise", "parts", "--precision", "fp16", *folder)
    assert first.returncode == 0, first.stderr
    calibrated = ("--precision", "int8", "--calibration", str(drawn), "--as", "tiny", *folder)
    second = workers_command("quantise", "parts", *calibrated)
    assert second.returncode == 0, second.stderr
    for name, precision in (("parts-fp16", "fp16"), ("tiny", "int8")):
        said = {one.key: one.value for one in onnx.load(tmp_path / f"{name}.onnx").metadata_props}
        assert (said[PRECISION], said["task"], said["gongwei.weights"]) == (precision, "detect", "random")
        looked = workers_command("check", name, str(drawn / "0.png"), "--json", *folder)
        assert looked.returncode == 0, looked.stderr
        assert f"{precision} is slower than fp32 on a CPU" in looked.stderr
    again = workers_command("quantise", "parts", *calibrated)
    assert (again.returncode, "--as" in again.stderr) == (1, True)
    assert workers_command("quantise", "parts", *calibrated, "--replace").returncode == 0
    shutil.copy(tmp_path / "tiny.onnx", tmp_path / "small.onnx")
    refused = workers_command("quantise", "small", "--precision", "fp16", *folder)
    assert (refused.returncode, "is of int8 already" in refused.stderr) == (1, True)
    absent = workers_command("quantise", "absent", "--precision", "fp16", *folder)
    assert (absent.returncode, "no file; looked for" in absent.stderr) == (1, True)


def test_a_file_whose_input_is_fp16_is_of_fp16(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT16, [1, 3, 4, 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, 4, 4])
    node = helper.make_node("Cast", ["images"], ["out"], to=TensorProto.FLOAT)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph([node], "x", [images], [out]), opset_imports=opsets, ir_version=8)
    (tmp_path / "half.onnx").write_bytes(model.SerializeToString())
    engine = OnnxEngine.load(tmp_path / "half.onnx", threads=1)
    assert engine.signature.metadata[PRECISION] == "fp16"
    assert engine.infer(np.ones((1, 3, 4, 4), np.float32))[0].dtype == np.float32


def test_a_worker_warns_at_its_start(context: zmq.Context[Any], tmp_path: Path) -> None:
    path = tmp_path / "parts.onnx"
    path.write_bytes(convert(small("yolov5n"), Wanted("fp16")).SerializeToString())
    broker = FakeBroker(context, f"tcp://127.0.0.1:{free_port()}")
    broker.start()
    try:
        with started(broker, "--model", f"parts={path}") as process:
            broker.lease()
            process.popen.kill()
            process.wait()
            assert "fp16 is slower than fp32 on a CPU" in process.log
    finally:
        broker.close()
