"""The Darknet importer against OpenCV's own importer (its answers are in tests/darknet), and against plain numpy."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.darknet import noise
from tests.darknet.cases import BEYOND, NEW_COORDS, OURS, PICTURES, PUBLISHED, TRAINED, Case
from tests.darknet.make import FOLDER, HEAD_SAMPLE, ROW_SAMPLE, Array, sample
from workers import image
from workers.errors import ModelError
from workers.options import ModelOptions
from workers.runner import Runner
from workers.zoo import cfg
from workers.zoo.darknet import Detector
from workers.zoo.layers import Convolution, Network, Yolo
from workers.zoo.plan import plan
from workers.zoo.weights import Weights


class Imported:
    """A detector with random weights, imported from files, with what its heads are given as further outputs."""

    def __init__(self, text: str, seed: int, factors: Array, folder: Path) -> None:
        self.network = plan(cfg.parse(text, "a.cfg"))
        paths = folder / "a.cfg", folder / "a.weights"
        paths[0].write_text(text, encoding="utf-8")
        paths[1].write_bytes(noise.weight_file(self.network, seed, factors))
        model = Detector.load(*paths).model({})
        self.nodes = {node.name: node for node in model.graph.node}
        for name in self._heads(model):
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def _heads(self, model: onnx.ModelProto) -> list[str]:
        scopes = [f"{index:03d}_yolo/" for index, one in enumerate(self.network.layers) if isinstance(one, Yolo)]
        return [self.nodes[f"{scope}Reshape"].input[0] for scope in scopes]

    def __call__(self, images: Array) -> tuple[Array, list[Array]]:
        """Rows, and what the heads are given; of a batch."""
        rows, *heads = self._session.run(None, {"images": images})
        return rows, heads


def imported(case: Case, models: Path, folder: Path) -> tuple[Imported, Any]:
    """A case, and OpenCV's answers."""
    with np.load(FOLDER / f"{case.name}.npz") as kept:
        answers = dict(kept)
    return Imported(case.cfg(models), case.seed, answers["gains"], folder), answers


def check(case: Case, models: Path, folder: Path) -> None:
    """Heads within 1e-3 of their spread, centres and sizes within 0.05 pixels or 1e-3, scores within 1e-3."""
    model, answers = imported(case, models, folder)
    rows, heads = model(noise.picture(case.seed, *model.network.input[1:])[None])
    start = 0
    for number, (head, layer) in enumerate(zip(heads, model.network.heads, strict=True)):
        spread = answers[f"std{number}"]
        assert 0.1 < spread < 3
        values = head[0].reshape(-1)
        found = values[sample(values.size, HEAD_SAMPLE)]
        np.testing.assert_allclose(found, answers[f"head{number}"], rtol=0, atol=1e-3 * spread)
        count = len(layer.anchors) * layer.shape[1] * layer.shape[2]
        some = rows[0, start : start + count][sample(count, ROW_SAMPLE)]
        expected = answers[f"rows{number}"]
        np.testing.assert_allclose(some[:, :4], expected[:, :4], rtol=1e-3, atol=0.05)
        np.testing.assert_allclose(some[:, 4], expected[:, 4], rtol=0, atol=1e-3)
        np.testing.assert_allclose(some[:, 5:] * some[:, 4:5], expected[:, 5:], rtol=0, atol=1e-3)
        start += count
    assert start == rows.shape[1]


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_our_cfgs_agree_with_opencv(case: Case, tmp_path: Path) -> None:
    check(case, Path(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_published_cfgs_agree_with_opencv(case: Case, testdata: Path, tmp_path: Path) -> None:
    check(case, testdata / "models", tmp_path)


@pytest.mark.parametrize("case", [*OURS, Case("beyond", 8, BEYOND)], ids=lambda case: case.name)
def test_our_cfgs_agree_with_plain_numpy(case: Case, tmp_path: Path) -> None:
    network = plan(cfg.parse(case.cfg(Path()), "a.cfg"))
    picture = noise.picture(case.seed, *network.input[1:])
    factors = noise.gains(network, case.seed, picture)
    _, heads = Imported(case.cfg(Path()), case.seed, factors, tmp_path)(picture[None])
    for head, expected in zip(heads, noise.reference_heads(network, case.seed, factors, picture), strict=True):
        np.testing.assert_allclose(head[0], expected, rtol=0, atol=1e-4 * expected.std())


# --- trained models on pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("picture", PICTURES)
def test_detections_agree_with_opencv(name: str, picture: str, testdata: Path, tmp_path: Path) -> None:
    """The whole way of a worker, from the picture file to boxes in its pixels."""
    models = testdata / "models"
    path = tmp_path / f"{name}.onnx"
    model = Detector.load(models / f"{name}.cfg", models / f"{name}.weights").model({"gongwei.fit": "stretch"})
    path.write_bytes(model.SerializeToString())
    runner = Runner.load(ModelOptions(name=name, source=path), 1)
    shot = image.load(testdata / "images" / picture)
    found = runner.look(shot)["detections"]
    with np.load(FOLDER / f"{name}-pictures.npz") as kept:
        expected = kept[picture]
    assert [one["class"] for one in found] == expected[:, 5].tolist()
    sides = np.array([shot.shape[1], shot.shape[0]] * 2)
    boxes = np.array([one["box"] for one in found])
    np.testing.assert_allclose(boxes, expected[:, :4].clip(0, sides), rtol=0, atol=0.5)
    np.testing.assert_allclose([one["score"] for one in found], expected[:, 4], rtol=0, atol=0.005)


# --- batches and files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_a_batch_of_three_is_three_pictures(case: Case, tmp_path: Path) -> None:
    batch_of_three(case, Path(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov4", "yolov4-tiny"])
def test_a_batch_of_three_is_three_pictures_for_published_cfgs(name: str, testdata: Path, tmp_path: Path) -> None:
    (case,) = (case for case in PUBLISHED if case.name == name)
    batch_of_three(case, testdata / "models", tmp_path)


def batch_of_three(case: Case, models: Path, folder: Path) -> None:
    model, _ = imported(case, models, folder)
    pictures = np.stack([noise.picture(seed, *model.network.input[1:]) for seed in range(3)])
    together, _ = model(pictures)
    single = [model(picture[None])[0] for picture in pictures]
    np.testing.assert_allclose(together, np.concatenate(single), rtol=1e-4, atol=1e-4)
    assert not np.allclose(single[0], single[1])


def test_graph_says_which_section_a_node_is_of(tmp_path: Path) -> None:
    model, _ = imported(OURS[0], Path(), tmp_path)
    assert "000_convolutional/Conv" in model.nodes
    assert len({node.name for node in model.nodes.values()}) == len(model.nodes)
    heads = [index for index, layer in enumerate(model.network.layers) if isinstance(layer, Yolo)]
    assert all(f"{index:03d}_yolo/Exp" in model.nodes for index in heads)
    assert "output/Concat" in model.nodes


@pytest.mark.parametrize(("version", "size"), [((0, 1), 16), ((0, 2), 20), ((1, 0), 20), ((0, 0), 16)])
def test_header_has_32_or_64_bits_of_seen(version: tuple[int, int], size: int, tmp_path: Path) -> None:
    network = plan(cfg.parse(NEW_COORDS, "a.cfg"))
    path = tmp_path / "a.weights"
    path.write_bytes(noise.weight_file(network, 1, np.ones(9, np.float32), version))
    weights = Weights.load(path, network)
    assert (weights.header.version[:2], weights.header.size, weights.header.seen) == (version, size, 64_000)
    first = network.layers[0]
    assert isinstance(first, Convolution)
    one = noise.drawn(1, 0, first, 1.0)
    kernel, bias = weights.convolution(first)
    root = np.sqrt(one.variance + 1e-5)
    np.testing.assert_allclose(kernel, one.kernel * (one.scale / root)[:, None, None, None], rtol=1e-5)
    np.testing.assert_allclose(bias, one.bias - one.mean * one.scale / root, rtol=1e-4, atol=1e-6)


def weights_of(network: Network, change: Callable[[bytes], bytes], folder: Path) -> Weights:
    path = folder / "a.weights"
    path.write_bytes(change(noise.weight_file(network, 1, np.ones(9, np.float32))))
    return Weights.load(path, network)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-4], r"579 floats of weights, but the cfg takes 580: they run out in layer 2, a.cfg:14:"
         r" \[convolutional\], which takes 208, and finds 207"),
        (lambda data: data[:-5], "578 floats and 3 bytes of weights"),
        (lambda data: data[:24], r"1 floats of weights, .* in layer 0, a.cfg:4: .* which takes 372, and finds 1"),
        (lambda data: data + b"abcd", "581 floats of weights, but the cfg takes 580: 1 are left over"),
        (lambda data: data[:16], "ends inside its header"),
        (lambda data: data[:5], "5 bytes are no Darknet weights"),
        (lambda data: b"\x89PNG" + data[4:], "is none that can be read"),
        (lambda data: data[:164] + struct.pack("<f", -1) + data[168:], r"a.cfg:4: .* are not finite"),
        (lambda data: data[:-4] + struct.pack("<f", np.nan), r"a.cfg:14: .* in .*a.weights are not finite"),
    ],
)  # fmt: skip
def test_wrong_weights_are_refused(change: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    network = plan(cfg.parse(NEW_COORDS, "a.cfg"))
    with pytest.raises(ModelError, match=words):
        Detector(network, weights_of(network, change, tmp_path)).model({})


def test_a_graph_can_be_built_again(tmp_path: Path) -> None:
    network = plan(cfg.parse(NEW_COORDS, "a.cfg"))
    detector = Detector(network, weights_of(network, bytes, tmp_path))
    assert detector.model({}) == detector.model({})


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.weights: cannot be read"):
        Weights.load(tmp_path / "none.weights", plan(cfg.parse(NEW_COORDS, "a.cfg")))
