"""What a worker does around the engine, stage by stage, in one thread: decode, prepare, infer, interpret."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from msgspec import Struct

from clients.encoding import encode_image
from clients.synthetic import SyntheticCamera
from workers import image
from workers.options import ModelOptions
from workers.runner import Runner
from workers.zoo.catalogue import find
from workers.zoo.making import Order, make

#: Preparing and interpreting together, in parts of the inference of the first model.
TARGET: Final = 0.1
#: Architectures of the zoo that are measured where no file is given: random weights, but the same work.
DEFAULT: Final = ("yolov5n", "yolov5n-seg", "yolov5n-cls")
_HEIGHT, _WIDTH, _DRAWN = 1080, 1920, 4


class Stages(Struct, frozen=True, kw_only=True):
    """Milliseconds per frame, the median of the rounds; `found`: detections in a frame, in the mean,
    None: a classifier."""

    model: str
    task: str
    batch: int
    found: float | None
    decode: float
    prepare: float
    infer: float
    interpret: float


def made(folder: Path) -> Iterator[Path]:
    """The zoo's models, written into `folder`."""
    for name in DEFAULT:
        path = folder / f"{name}.onnx"
        path.write_bytes(make(Order(kind=find(name))).SerializeToString())
        yield path


def pictures(paths: list[Path], count: int) -> list[bytes]:
    """JPEG or PNG files: those at `paths` over and over, or parts that the synthetic camera draws, as JPEG at 1080p.

    Raises OSError.
    """
    if paths:
        found = [path.read_bytes() for path in paths]
        return [found[number % len(found)] for number in range(count)]
    camera = SyntheticCamera(size=(_HEIGHT, _WIDTH))
    drawn = [bytes(encode_image(camera.part(number).image, "jpeg").payload) for number in range(min(count, _DRAWN))]
    return [drawn[number % len(drawn)] for number in range(count)]


def measure(path: Path, batch: int, files: list[bytes], rounds: int) -> Stages:
    """`rounds` batches of `files`. Raises WorkersError."""
    cv2.setNumThreads(1)
    runner = Runner.load(ModelOptions(name="bench", source=path, max_batch=batch), 1)
    runner.warm_up()
    inputs = np.empty((batch, 3, *runner.model.size), np.float32)
    seconds, found = [], 0
    for _ in range(rounds):
        marks = [time.perf_counter()]
        shown = [_decode(file) for file in files[:batch]]
        marks.append(time.perf_counter())
        placements = [runner.prepare(picture, inputs[row]) for row, picture in enumerate(shown)]
        marks.append(time.perf_counter())
        outputs = runner.engine.infer(inputs)
        marks.append(time.perf_counter())
        bodies = [runner.interpret(outputs, row, placement) for row, placement in enumerate(placements)]
        marks.append(time.perf_counter())
        seconds.append(np.diff(marks))
        found += sum(len(body.get("detections", ())) for body in bodies)
    decode, prepare, infer, interpret = (1000 * np.median(seconds, axis=0) / batch).tolist()
    return Stages(
        model=path.stem,
        task=runner.model.task,
        batch=batch,
        found=None if runner.model.task == "classify" else found / (rounds * batch),
        decode=decode,
        prepare=prepare,
        infer=infer,
        interpret=interpret,
    )


def _decode(file: bytes) -> image.Picture:
    encoding, height, width = image.sniff(file)
    return image.decode(file, encoding, [height, width])
