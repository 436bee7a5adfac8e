"""Whether a rewritten model answers a batch of pictures as the file that it came from answers each of them alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.engine import Array, Engine
from workers.engine.onnx import OnnxEngine
from workers.errors import EngineError
from workers.model import Model
from workers.upgrade import complaint

#: Pictures in the batch of the proof.
COUNT: Final = 3
#: Pictures in it at most, where a file's batch is fixed: each of them costs a run of all that the file takes.
MOST: Final = 32
#: How far answers may be apart: parts of the spread of an output's values (of each column of boxes, of each prototype
#: apart), and that much more, where everything is nearly 0.
CLOSE: Final = 1e-4
FLOOR: Final = 1e-6

Levels: TypeAlias = NDArray[np.uint8]


def refusal(original: Engine, content: bytes, model: Model, *, count: int = COUNT, flipped: bool = False) -> str:
    """Why the ONNX file `content` cannot take the place of `original` in batches of up to `count`; "" where it can.

    Both look at noise and at made-up scenes; `flipped`: the original takes blue, green, red.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.onnx"
        path.write_bytes(content)
        try:
            engine = OnnxEngine.load(path, threads=0)
        except EngineError as error:
            return complaint(error).replace(f"{path}: ", "")
        try:
            # `map` keeps no batch while the next one is made: there is never more than one.
            return next(filter(None, map(partial(_differs, original, engine, flipped), _batches(model, count))), "")
        except EngineError as error:
            return complaint(error)
        finally:
            engine.close()


def _differs(original: Engine, engine: Engine, flipped: bool, batch: Array) -> str:
    """What is different in the answers to `batch`; "": nothing."""
    shown = np.ascontiguousarray(batch[:, ::-1]) if flipped else batch
    singles = [[output.copy() for output in original.infer(shown[row : row + 1])] for row in range(len(batch))]
    alone = [np.concatenate(outputs) for outputs in zip(*singles, strict=True)]
    if not all(np.isfinite(output).all() for output in alone):
        return "it answers what is no number, so that nothing can be compared"
    if len(batch) > 1 and all(_apart(output, output[:1]) <= 1 for output in alone):
        return "it answers the same to every picture, so that nothing is proved"
    for count in {1, len(batch)}:
        for index, output in enumerate(engine.infer(batch[:count])):
            wanted = alone[index]
            if output.shape != wanted[:count].shape:
                return f"output {index} of a batch of {count} is {list(output.shape)}"
            apart = _apart(wanted, output, count)
            if not apart <= 1:
                return f"output {index} of a batch of {count} is {apart * CLOSE:.2g} of its spread from the file's own"
    return ""


def _apart(wanted: Array, output: Array, count: int | None = None) -> float:
    """The greatest difference of the first `count` rows, in what is allowed."""
    longest = [axis for axis in range(1, wanted.ndim) if wanted.shape[axis] != min(wanted.shape[1:])]
    axes = (0, *(longest or range(1, wanted.ndim)))
    allowed = CLOSE * np.ptp(wanted, axis=axes, keepdims=True) + FLOOR
    return float((np.abs(output - wanted[:count]) / allowed).max())


def _batches(model: Model, count: int) -> Iterator[Array]:
    """Noise, then scenes of coloured clouds and boxes, as the model takes them."""
    random = np.random.default_rng(0)
    for draw in (_noise, _scene):
        yield _scaled([draw(random, *model.size) for _ in range(count)], model)


def _scaled(pictures: list[Levels], model: Model) -> Array:
    mean, std = (np.array(three, np.float32)[:, None, None] for three in (model.scaling.mean, model.scaling.std))
    batch: Array = np.stack(pictures).astype(np.float32)
    batch -= mean
    batch /= std
    return batch


def _noise(random: np.random.Generator, height: int, width: int) -> Levels:
    return random.integers(0, 256, (3, height, width), np.uint8)


def _scene(random: np.random.Generator, height: int, width: int) -> Levels:
    clouds = cv2.resize(random.integers(0, 256, (6, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(5):
        x, y = (int(random.integers(0, side)) for side in (width, height))
        colour = tuple(int(level) for level in random.integers(0, 256, 3))
        cv2.rectangle(clouds, (x, y), (x + width // 4, y + height // 3), colour, -1)
    return np.asarray(clouds, np.uint8).transpose(2, 0, 1)
