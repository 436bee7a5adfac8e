"""Weights from files: ONNX graphs under any names and in any order, safetensors folded or not, and bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from workers.errors import ModelError
from workers.placement import Scaling
from workers.zoo import safetensors
from workers.zoo.catalogue import Architecture, find
from workers.zoo.donor import open_donor
from workers.zoo.initial import random_values
from workers.zoo.likeness import matched
from workers.zoo.making import Order, make
from workers.zoo.network import Network, Values
from workers.zoo.yolov5 import ANCHORS

SIZE = (64, 64)
RNG = np.random.default_rng(11)
KINDS = ["yolov5n", "yolov5n-seg", "yolov5n-cls", "mobilenetv2"]


def trained(kind: Architecture, classes: int = 3) -> tuple[Network, dict[str, Values]]:
    """A network and weights that are no zero anywhere."""
    net = kind.build(SIZE, classes)
    values = random_values(net, 5, Scaling())
    return net, {name: (weights, biases + 0.01) for name, (weights, biases) in values.items()}


def answers(model: Any) -> list[Any]:
    images = np.random.default_rng(2).random((1, 3, *SIZE), np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": images}))


def same(first: list[Any], second: list[Any], close: float = 1e-4) -> bool:
    return all(np.allclose(a, b, rtol=close, atol=close) for a, b in zip(first, second, strict=True))


# --- ONNX ------------------------------------------------------------------------------------------------------------


def disguised(model: Any) -> Any:
    """The same model under meaningless names, its nodes shuffled as far as their order allows, weights stored first."""
    graph = model.graph
    names: dict[str, str] = {}
    kept = {value.name for value in (*graph.input, *graph.output)}

    def renamed(name: str) -> str:
        return name if name in kept or not name else names.setdefault(name, f"t{len(names)}")

    waiting, done = list(graph.node), {value.name for value in graph.input} | {one.name for one in graph.initializer}
    order = []
    while waiting:
        ready = [node for node in waiting if all(name in done or not name for name in node.input)]
        chosen = ready[int(RNG.integers(len(ready)))]
        waiting.remove(chosen)
        done.update(chosen.output)
        order.append(chosen)
    for node in order:
        node.name = ""
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    constants = list(graph.initializer)
    for one in constants:
        one.name = renamed(one.name)
    RNG.shuffle(constants)
    body = helper.make_graph(order, "g", graph.input, graph.output, constants)
    other = helper.make_model(body, opset_imports=model.opset_import, ir_version=model.ir_version)
    helper.set_model_props(other, {entry.key: entry.value for entry in model.metadata_props})
    return other


@pytest.mark.parametrize("name", KINDS)
def test_layers_are_found_whatever_they_are_called_and_in_any_order(name: str, tmp_path: Path) -> None:
    net, values = trained(find(name))
    original = net.model(values, {"names": "['a', 'b', 'c']"})
    path = tmp_path / "theirs.onnx"
    path.write_bytes(disguised(original).SerializeToString())
    model = make(Order(kind=find(name), weights=path, size=SIZE))
    assert same(answers(model), answers(original), 0)
    assert "['a', 'b', 'c']" not in {entry.value for entry in model.metadata_props}  # written as a dict, as Ultralytics
    assert {entry.key: entry.value for entry in model.metadata_props}["names"] == "{0: 'a', 1: 'b', 2: 'c'}"


def test_order_and_shapes_alone_would_take_one_branch_for_the_other() -> None:
    """Why layers are found by how they are connected: C3's two branches have weights of one shape."""
    net, values = trained(find("yolov5n"))
    shapes = [layer.shape for layer in net.layers if layer.name in ("model.2.cv1.conv", "model.2.cv2.conv")]
    assert shapes[0] == shapes[1]
    ours = net.graph.draft().graph
    for _ in range(3):
        found = matched(ours, disguised(net.model(values, {})).graph)
        for layer in net.layers:
            assert np.array_equal(found[layer.constants[0]][0], values[layer.name][0]), layer.name


def test_other_anchors_are_found_in_the_boxes(tmp_path: Path) -> None:
    anchors = tuple(tuple((width * 1.5, height * 0.7) for width, height in level) for level in ANCHORS)
    kind = find("yolov5n")
    net = kind.build(SIZE, 3, anchors)
    original = net.model(random_values(net, 5, Scaling()), {"names": "['a', 'b', 'c']"})
    path = tmp_path / "theirs.onnx"
    path.write_bytes(original.SerializeToString())
    assert same(answers(make(Order(kind=kind, weights=path, size=SIZE))), answers(original), 1e-3)


def test_a_graph_with_another_activation_is_refused(tmp_path: Path) -> None:
    net, values = trained(find("yolov5n"))
    model = net.model(values, {})
    for node in model.graph.node:
        if node.op_type == "Sigmoid" and "model.9" in node.name:
            node.op_type = "HardSigmoid"
    path = tmp_path / "theirs.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"answers differently.*another activation"):
        make(Order(kind=find("yolov5n"), weights=path, size=SIZE))


def test_a_layer_too_many_is_refused() -> None:
    net, values = trained(find("mobilenetv2"))
    model = net.model(values, {})
    weights = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "extra")
    model.graph.initializer.append(weights)
    model.graph.node.append(helper.make_node("Conv", ["images", "extra"], ["unused"]))
    with pytest.raises(ModelError, match=r"its layer extra \(3x3x1x1\) has no place here"):
        matched(net.graph.draft().graph, model.graph)


def test_a_graph_that_goes_round_in_a_circle_is_refused() -> None:
    net, values = trained(find("mobilenetv2"))
    model = net.model(values, {})
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    with pytest.raises(ModelError, match="circle"):
        matched(net.graph.draft().graph, model.graph)


def test_a_file_without_names_asks_for_labels(tmp_path: Path) -> None:
    net, values = trained(find("mobilenetv2"))
    path = tmp_path / "theirs.onnx"
    path.write_bytes(net.model(values, {}).SerializeToString())
    with pytest.raises(ModelError, match=r"3 classes and no names.*--labels"):
        make(Order(kind=find("mobilenetv2"), weights=path, size=SIZE))
    make(Order(kind=find("mobilenetv2"), weights=path, size=SIZE, names=("a", "b", "c")))


# --- safetensors -----------------------------------------------------------------------------------------------------


def written(path: Path, tensors: dict[str, Any], **changes: Any) -> Path:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in tensors.items():
        kind = {"<f4": "F32", "<f2": "F16", "<i8": "I64", "<u2": "BF16"}[array.dtype.str]
        raw = array.tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        header[name] |= changes.get(name, {})
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def apart(net: Network, values: dict[str, Values], prefix: str = "") -> dict[str, Any]:
    """The state dict of a model that was not fused: weights, and batch norms that make of them what `values` has."""
    tensors: dict[str, Any] = {}
    for layer in net.layers:
        weights, biases = values[layer.name]
        if not layer.norm:
            tensors |= {f"{prefix}{layer.name}.weight": weights, f"{prefix}{layer.name}.bias": biases}
            continue
        outputs = len(biases)
        mean, variance = RNG.standard_normal(outputs), RNG.random(outputs) + 0.5
        scale = RNG.random(outputs) + 0.5
        factor = scale / np.sqrt(variance + net.epsilon)
        parts = {"weight": scale, "bias": biases + mean * factor, "running_mean": mean, "running_var": variance}
        tensors |= {f"{prefix}{layer.norm}.{part}": array.astype(np.float32) for part, array in parts.items()}
        tensors[f"{prefix}{layer.norm}.num_batches_tracked"] = np.array(7, np.int64)
        tensors[f"{prefix}{layer.name}.weight"] = (weights / factor[:, None, None, None]).astype(np.float32)
    return tensors


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_batch_norms_are_folded(name: str, prefix: str, tmp_path: Path) -> None:
    net, values = trained(find(name))
    path = written(tmp_path / "w.safetensors", apart(net, values, prefix))
    model = make(Order(kind=find(name), weights=path, size=SIZE, names=("a", "b", "c")))
    assert same(answers(model), answers(net.model(values, {})), 1e-3)


def test_fused_weights_and_anchors_are_taken_as_they_are(tmp_path: Path) -> None:
    kind = find("yolov5n")
    anchors = tuple(tuple((width + 2, height + 4) for width, height in level) for level in ANCHORS)
    net = kind.build(SIZE, 3, anchors)
    values = random_values(net, 5, Scaling())
    tensors = {
        f"{layer.name}.{part}": array
        for layer in net.layers
        for part, array in zip(("weight", "bias"), values[layer.name], strict=True)
    }
    cells = np.array([8, 16, 32]).reshape(3, 1, 1)
    path = written(
        tmp_path / "w.safetensors", tensors | {"model.24.anchors": (np.array(anchors) / cells).astype(np.float32)}
    )
    model = make(Order(kind=kind, weights=path, size=SIZE, names=("a", "b", "c")))
    assert same(answers(model), answers(net.model(values, {})))


def test_a_tensor_that_is_missing_or_of_another_shape_is_named(tmp_path: Path) -> None:
    net, values = trained(find("mobilenetv2"))
    tensors = apart(net, values)
    wrong = tensors | {"features.3.conv.1.0.weight": np.zeros((3, 3), np.float32)}
    absent = {name: array for name, array in tensors.items() if name != "features.18.1.bias"}
    for changed, said in (
        (wrong, "features.3.conv.1.0.weight must be .*its own is 3x3"),
        (absent, "features.18.1.bias.*has none"),
    ):
        donor = open_donor(written(tmp_path / "w.safetensors", changed))
        with pytest.raises(ModelError, match=said):
            donor.values(net)


def test_half_floats_are_read(tmp_path: Path) -> None:
    array = np.array([[1.5, -2.0, 0.25]], np.float32)
    brain = (array.view("<u4") >> 16).astype("<u2")
    path = written(tmp_path / "w.safetensors", {"f": array, "h": array.astype(np.float16), "b": brain})
    read = safetensors.read(path)
    assert all(np.array_equal(read[name], array) for name in "fhb")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        (1 << 60).to_bytes(8, "little") + b"{}",
        (100).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"[1] ",
        (4).to_bytes(8, "little") + b"\xff\xff\xff\xff",
        (2).to_bytes(8, "little") + b"{]",
    ],
)
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"w.safetensors: .*header"):
        safetensors.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 400]},
        {"data_offsets": [-12, 0]},
        {"data_offsets": [12, 0]},
        {"shape": [4]},
        {"shape": [-1, -3]},
        {"shape": [1 << 62, 1 << 62]},
        {"dtype": "F64"},
    ],
)
def test_a_tensor_that_does_not_lie_in_the_file_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "w.safetensors", {"a": np.zeros(3, np.float32)}, a=change)
    with pytest.raises(ModelError, match=r"'a' is .* it does not fit|take more than the 12 bytes"):
        safetensors.read(path)


def test_tensors_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    shared = {"data_offsets": [0, 12]}
    path = written(tmp_path / "w.safetensors", {name: np.zeros(3, np.float32) for name in "abc"}, b=shared, c=shared)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ModelError, match="take more than the 24 bytes"):
        safetensors.read(path)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.onnx"
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        open_donor(path)
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), path)
    with pytest.raises(ModelError, match="its last layer has 0 columns"):
        open_donor(path).classes(find("yolov5n"))


@pytest.mark.parametrize("location", ["absent.bin", "../outside.bin", "short.bin"])
def test_weights_in_a_file_that_is_not_as_it_should_be_are_refused(location: str, tmp_path: Path) -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=16)
    tensor.ClearField("raw_data")
    model.graph.initializer.append(tensor)
    (tmp_path / "short.bin").write_bytes(b"short")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be read as ONNX"):
        open_donor(tmp_path / "m.onnx")
