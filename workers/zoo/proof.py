"""Whether a network of the zoo answers what the file answers that its weights came from: both look at one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from workers.classify import are_probabilities, softmax
from workers.engine.onnx import OnnxEngine
from workers.errors import ModelError
from workers.zoo.catalogue import Architecture
from workers.zoo.network import Array
from workers.zoo.yolov5 import ANCHORS, Anchors

#: How far answers may be apart, in parts of the file's largest one (1 at least); more where the file is fp16.
_CLOSE: Final = 2e-3
_CLOSE_HALF: Final = 1e-2
#: The same for the centre of a box, in pixels, and its sides, as a ratio: exporters round cells and anchors, too.
_CENTRE: Final = 1.5
_SIDES: Final = 0.02
_SMALLEST: Final = 1.0


def size_of(path: Path, otherwise: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that the ONNX file at `path` takes; `otherwise` where it takes any."""
    height, width = OnnxEngine.load(path, threads=1).signature.input[2:]
    return (height, width) if height is not None and width is not None else otherwise


def proven(kind: Architecture, model: Any, size: tuple[int, int], path: Path) -> Anchors:
    """The anchors of the file at `path`, whose weights `model` (an onnx.ModelProto for pictures of `size`) has.

    Raises ModelError where the two answer differently, and other anchors do not explain it.
    """
    engine = OnnxEngine.load(path, threads=0)
    picture = _picture(size)
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ours, theirs = session.run(None, {"images": picture}), engine.infer(picture)
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        shapes = [[list(one.shape) for one in outputs] for outputs in (theirs, ours)]
        raise ModelError(f"{path}: its outputs are {shapes[0]}, and those of {kind.name} are {shapes[1]}")
    half = any(one.data_type == TensorProto.FLOAT16 for one in _initializers(path))
    close = _CLOSE_HALF if half else _CLOSE
    if kind.task == "classify":
        shown = softmax(ours[0]) if are_probabilities(theirs[0]) else ours[0]
        _agree(shown, theirs[0], close, kind, path)
        return ANCHORS
    table = _ordered(ours[0][0], theirs[0][0], size)
    _agree(ours[0][0, :, 4:], table[:, 4:], close, kind, path)
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        _agree(mine, other, close, kind, path)
    return _anchors(ours[0][0], table, size, kind, path)


def _initializers(path: Path) -> Any:
    return onnx.load(path, load_external_data=False).graph.initializer


def _picture(size: tuple[int, int]) -> Array:
    """Coloured clouds, [1, 3, height, width] from 0 to 1."""
    small = np.random.default_rng(0).random((16, 16, 3), np.float32)
    return np.ascontiguousarray(cv2.resize(small, size[::-1]).transpose(2, 0, 1)[None], np.float32)


def _agree(ours: Array, theirs: Array, close: float, kind: Architecture, path: Path) -> None:
    apart = float(np.abs(ours - theirs).max())
    if not apart <= close * max(1.0, float(np.abs(theirs).max())):
        raise ModelError(
            f"{path}: has the layers of {kind.name}, but answers differently (by {apart:.3g}): another activation or"
            " other constants; use the file itself"
        )


def _levels(size: tuple[int, int]) -> list[slice]:
    """The rows of each level."""
    counts = [3 * (size[0] // stride) * (size[1] // stride) for stride in (8, 16, 32)]
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]


def _ordered(ours: Array, theirs: Array, size: tuple[int, int]) -> Array:
    """`theirs`, anchor by anchor; TensorFlow's exports go cell by cell."""
    columns = theirs.shape[1]
    parts = [theirs[level].reshape(-1, 3, columns).transpose(1, 0, 2).reshape(-1, columns) for level in _levels(size)]
    turned: Array = np.concatenate(parts)
    as_it_is, otherwise = (float(np.abs(ours[:, 4] - one[:, 4]).max()) for one in (theirs, turned))
    return theirs if as_it_is <= otherwise else turned


def _anchors(ours: Array, theirs: Array, size: tuple[int, int], kind: Architecture, path: Path) -> Anchors:
    apart = float(np.abs(ours[:, :2] - theirs[:, :2]).max())
    if not apart <= _CENTRE:
        raise ModelError(f"{path}: its boxes lie elsewhere than those of {kind.name}, by {apart:.3g} pixels")
    found = []
    for level, published in zip(_levels(size), ANCHORS, strict=True):
        mine, other = (table[level, 2:4].reshape(3, -1, 2) for table in (ours, theirs))
        ratio = np.median(other / np.maximum(mine, 1e-6), axis=1)
        if not np.all(np.abs(other - mine * ratio[:, None]) <= _SIDES * other + _SMALLEST):
            raise ModelError(f"{path}: its boxes are of other sizes than those of {kind.name}, whatever its anchors")
        ratio = np.where(np.abs(ratio - 1) <= _SIDES, 1, ratio)
        sides = np.round(np.array(published) * ratio, 3)
        found.append(tuple((float(width), float(height)) for width, height in sides))
    return tuple(found)
