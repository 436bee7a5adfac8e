"""Models in fp16 and int8: batches, refusals, the command, and what a worker says of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zmq

from tests.conftest import free_port
from tests.small_graphs import graph, node
from tests.small_models import PRECISIONS, SMALL, converted, run, small
from tests.test_worker import FakeBroker
from tests.test_workers_cli import started, workers_command
from workers.errors import ModelError
from workers.metadata import PRECISION, Precision
from workers.precision.calibration import pictures, ranges
from workers.precision.conversion import convert
from workers.precision.wanted import Wanted


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_of_three_is_three_single_runs(precision: Precision, drawn: Path) -> None:
    made = converted(small("yolov5n-seg"), precision, drawn)
    batch = np.random.default_rng(1).random((3, 3, *SMALL["yolov5n-seg"]), np.float32)
    together = run(made, batch)
    for row in range(3):
        for whole, alone in zip(together, run(made, batch[row : row + 1]), strict=True):
            np.testing.assert_allclose(whole[row], alone[0], atol=1e-3)


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


@pytest.mark.parametrize("level", [-1.0, 0.0])
def test_values_that_are_no_numbers_are_refused(level: float) -> None:
    """In the second picture of two, as the logarithm of a number below 0, and of 0."""
    model = graph([node("Log", ["pictures"], "log"), node("Identity", ["log"], "out")], {}, [1, 3, 8, 8])
    batches = [np.full((1, 3, 8, 8), 2, np.float32) for _ in range(3)]
    batches[1][0, 0, 0, 0] = level
    with pytest.raises(ModelError, match="its values are not finite at log: it cannot be quantised"):
        ranges(model, ["log"], lambda: batches)


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
    assert (absent.returncode, "no file; looked for\n" in absent.stderr) == (1, True)


def test_a_worker_warns_once_at_its_start(context: zmq.Context[Any], tmp_path: Path) -> None:
    path = tmp_path / "parts.onnx"
    path.write_bytes(convert(small("yolov5n"), Wanted("fp16")).SerializeToString())
    broker = FakeBroker(context, f"tcp://127.0.0.1:{free_port()}")
    broker.start()
    try:
        with started(broker, "--model", f"parts={path}", "--threads", "2") as process:
            broker.lease()
            process.popen.kill()
            process.wait()
            assert process.log.count("model ready") == 2
            assert process.log.count("fp16 is slower than fp32 on a CPU") == 1
    finally:
        broker.close()


def test_a_model_of_the_package_can_be_the_source(tmp_path: Path) -> None:
    ended = workers_command("quantise", "demo-cls", "--precision", "fp16", "--store", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "demo-cls-fp16.onnx").is_file()
