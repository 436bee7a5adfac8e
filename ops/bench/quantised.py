"""The demo models in fp16 and int8, made on the spot, and how much worse they see than in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import cv2

from clients.synthetic import SyntheticCamera
from ops.bench.compare import Target
from ops.bench.examination import DEFECT_RATE
from ops.bench.grade import Grade, make_target, mean
from ops.bench.rounding import rounded
from workers import onnxfile, shipped
from workers.metadata import Precision
from workers.precision.wanted import Wanted

#: The pictures from which int8 learns its ranges: parts of the training world, whose seeds no training has.
CALIBRATION_SEED: Final = 20_263
CALIBRATION_PICTURES: Final = 128
#: How far a figure may fall below fp32's.
FALLS: Final[Mapping[Precision, float]] = {"fp16": 0.01, "int8": 0.03}


def draw(folder: Path, count: int) -> None:
    """Write the first `count` pictures for calibration into `folder`."""
    camera = SyntheticCamera(CALIBRATION_SEED, defect_rate=DEFECT_RATE, world="train")
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:04d}.png"), camera.part(number).image)


def make(source: Path, into: Path, count: int) -> Iterator[tuple[Precision, Path]]:
    """For each precision a folder in `into` with the three models of `source`; `count`: pictures for int8.

    What fp16 answers on a GPU is computed in fp32 (see `rounding`). Raises ModelError for models that are not fp32.
    """
    pictures = into / "pictures"
    pictures.mkdir()
    draw(pictures, count)
    for precision in FALLS:
        wanted = Wanted(precision, pictures if precision == "int8" else None)
        folder = into / precision
        folder.mkdir()
        for name in shipped.NAMES:
            path = source / f"{name}.onnx"
            made = wanted.made(onnxfile.load(path), str(path))
            made = rounded(made) if precision == "fp16" else made
            (folder / path.name).write_bytes(onnxfile.content(made, str(path)))
        yield precision, folder


def make_targets(whole: Grade, others: Mapping[Precision, Grade]) -> list[Target]:
    """The promises about each precision beside `whole`, which is fp32."""
    return [
        make_target(f"{what} falls by, {precision}", wanted, fall, count, unit, most=True)
        for precision, wanted in FALLS.items()
        if precision in others
        for what, fall, count, unit in _falls(whole, others[precision])
    ]


def _falls(whole: Grade, other: Grade) -> list[tuple[str, float, int, str]]:
    """What falls, how far, and the number of what it was counted in."""
    defects = whole.all.missed["verdict"].count
    return [
        ("mAP50 of boxes, demo-det,", mean(whole.box) - mean(other.box), defects, "defects"),
        ("mAP50 of masks, demo-seg,", mean(whole.mask) - mean(other.mask), defects, "defects"),
        ("accuracy, demo-cls,", whole.accuracy.value - other.accuracy.value, whole.parts, "parts"),
    ]
