from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from workers.engine.fake import Fake, FakeEngine, poison_picture
from workers.engine.onnx import OnnxEngine
from workers.errors import EngineError


def save(path: Path, batch: int | str = "n", kind: int = TensorProto.FLOAT, fails: bool = False) -> Path:
    """A model that doubles its input [batch, 3, 4, 5]; with `fails` it cannot run a batch of 3."""
    image = helper.make_tensor_value_info("image", kind, [batch, 3, 4, 5])
    shape: list[int | str | None] = [batch, 3, 4, 5] if not fails else ["m", 120]
    double = helper.make_tensor_value_info("double", kind, shape)
    nodes = [helper.make_node("Add", ["image", "image"], ["double" if not fails else "sum"])]
    constants = []
    if fails:
        nodes.append(helper.make_node("Reshape", ["sum", "two"], ["double"]))
        constants.append(numpy_helper.from_array(np.array([-1, 120], np.int64), "two"))
    model = helper.make_model(
        helper.make_graph(nodes, "double", [image], [double], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    helper.set_model_props(model, {"task": "detect"})
    onnx.save(model, path)
    return path


def pictures(count: int) -> Any:
    return np.random.default_rng(count).random((count, 3, 4, 5), np.float32)


def test_signature(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx")
    engine = OnnxEngine.load(path, threads=1)
    assert engine.signature.input == (None, 3, 4, 5)
    assert engine.signature.outputs == ((None, 3, 4, 5),)
    assert engine.signature.metadata == {"task": "detect"}
    assert engine.signature.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_every_batch_size_first_and_again(tmp_path: Path, kind: int) -> None:
    engine = OnnxEngine.load(save(tmp_path / "m.onnx", kind=kind), threads=1)
    for count in (1, 3, 1, 2, 3, 3):
        batch = pictures(count)
        (output,) = engine.infer(batch)
        assert output.dtype == np.float32
        assert np.allclose(output, 2 * batch, atol=2e-3)


def test_outputs_are_reused(tmp_path: Path) -> None:
    engine = OnnxEngine.load(save(tmp_path / "m.onnx"), threads=1)
    engine.infer(pictures(2))
    (first,) = engine.infer(pictures(2))
    (second,) = engine.infer(pictures(2) + 1)
    assert np.shares_memory(first, second)


def test_a_fixed_batch_takes_fewer_rows(tmp_path: Path) -> None:
    engine = OnnxEngine.load(save(tmp_path / "m.onnx", batch=4), threads=1)
    assert engine.signature.input == (4, 3, 4, 5)
    for count in (1, 4, 3, 3):
        batch = pictures(count)
        (output,) = engine.infer(batch)
        assert output.shape == (count, 3, 4, 5)
        assert np.allclose(output, 2 * batch)


def test_a_call_that_fails_raises_and_the_next_one_works(tmp_path: Path) -> None:
    engine = OnnxEngine.load(save(tmp_path / "m.onnx", fails=True), threads=1)
    with pytest.raises(EngineError, match="batch of 3"):
        engine.infer(pictures(3))
    (output,) = engine.infer(pictures(4))
    assert np.allclose(output, 2 * pictures(4).reshape(2, 120))


def test_shufflenet_agrees_with_its_published_output(testdata: Path) -> None:
    path = testdata / "models" / "shufflenet-v2-12-int8.onnx"
    engine = OnnxEngine.load(path, threads=1)
    folder = testdata / "models" / "test_data_set_0"
    image, published = (read_tensor(folder / name) for name in ("input_0.pb", "output_0.pb"))
    (plain,) = onnxruntime.InferenceSession(path).run(None, {"input": image})
    for _ in range(2):
        (output,) = engine.infer(image)
        assert np.array_equal(output, plain)
        # int8 products saturate on processors without VNNI: the published values are theirs, to the last bit.
        assert np.corrcoef(output.ravel(), published.ravel())[0, 1] > 0.9
        assert output.argmax() == published.argmax()


def read_tensor(path: Path) -> Any:
    tensor = TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"broken\.onnx.*cannot load"):
        OnnxEngine.load(broken, threads=1)
    with pytest.raises(EngineError, match=r"missing\.onnx.*cannot be read"):
        OnnxEngine.load(tmp_path / "missing.onnx", threads=1)
    with pytest.raises(EngineError, match="available: cpu"):
        OnnxEngine.load(save(tmp_path / "m.onnx"), threads=1, device="quantum")
    with pytest.raises(EngineError, match="one float input"):
        OnnxEngine.load(save(tmp_path / "int.onnx", kind=TensorProto.INT32), threads=1)


# --- the fake --------------------------------------------------------------------------------------------------------


def test_fake_is_parsed() -> None:
    assert Fake.parse("delay=0.005,batch=4,poison=exit") == Fake(delay=0.005, batch=4, poison="exit")
    assert Fake.parse("") == Fake()


@pytest.mark.parametrize("text", ["dealy=1", "delay=fast", "poison=bite", "batch=0", "size=1", "delay=-1", "delay=nan"])
def test_fake_that_cannot_be(text: str) -> None:
    with pytest.raises(EngineError, match=r"allowed are|poison is one of"):
        Fake.parse(text)


def test_fake_tells_pictures_apart_and_raises_for_poison() -> None:
    engine = FakeEngine(Fake(batch=2, poison="raise"))
    batch = np.stack([np.full((3, 64, 64), level, np.float32) for level in (0.25, 0.5)])
    assert engine.infer(batch)[0][:, 0, 5].tolist() == [0.25, 0.5]
    batch[1] = poison_picture(64, 64)[:, :, ::-1].transpose(2, 0, 1) / 255
    with pytest.raises(EngineError, match="poison"):
        engine.infer(batch)
