"""TensorRT-RTX parses and builds models in fp16 and int8; needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from tests.small_models import EXPORTS, PRECISIONS, SMALL, converted, small
from workers.metadata import Precision
from workers.zoo.darknet import Detector


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
