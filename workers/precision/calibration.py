"""What values flow through a model when it looks at pictures: histograms of them, and from these the ranges of int8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from workers import image
from workers.errors import ImageError, ModelError
from workers.model import Model
from workers.placement import Array, fill, place
from workers.precision.entropy import BINS, threshold

#: Pictures that are looked at, at most; more change nothing any more. Of more, so many from first to last.
PICTURES: Final = 512
#: What may be a picture.
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp")
_ERRORS_ONLY: Final = 3


def pictures(folder: Path) -> list[Path]:
    """The files of pictures in a folder, by name; at most PICTURES. Raises ModelError where there is none."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise ModelError(f"--calibration {folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise ModelError(
            f"--calibration {folder}: has no picture ({', '.join(SUFFIXES)}); put some of the line's there"
        )
    if len(found) <= PICTURES:
        return found
    return [found[number * len(found) // PICTURES] for number in range(PICTURES)]


def inputs(files: Iterable[Path], model: Model) -> Iterator[Array]:
    """Each picture as a worker gives it to the model, [batch, 3, height, width]. Raises ModelError."""
    table = model.scaling.table()
    for path in files:
        try:
            picture = image.load(path)
        except (ImageError, OSError) as error:
            raise ModelError(f"--calibration: {path}: {error}; take it out of the folder") from None
        batch = np.empty((model.batch or 1, 3, *model.size), np.float32)
        height, width = picture.shape[:2]
        placed = place((height, width), model.size, model.fit, antialias=model.task == "classify")
        fill(picture, placed, table, batch[0])
        batch[1:] = batch[0]
        yield batch


def ranges(model: Any, names: Sequence[str], batches: Callable[[], Iterable[Array]]) -> dict[str, float]:
    """Of each value in `names` the magnitude that is to become 127. `batches` is asked twice: first for the greatest
    magnitude of each, then for how they are spread below it. Raises ModelError for values that are not finite."""
    watched = _Watched(model, names)
    tops = dict.fromkeys(names, 0.0)
    for batch in batches():
        for name, values in watched.run(batch):
            top = float(np.abs(values).max())
            if not np.isfinite(top):  # asked of each: max() leaves a NaN out
                raise ModelError(f"its values are not finite at {name}: it cannot be quantised")
            tops[name] = max(tops[name], top)
    counts = {name: np.zeros(BINS) for name in names}
    for batch in batches():
        for name, values in watched.run(batch):
            counts[name] += histogram(values, tops[name])
    return {name: threshold(counts[name], tops[name]) for name in names}


def histogram(values: NDArray[np.float32], top: float) -> NDArray[np.float64]:
    """Counts of |value| in BINS equal bins from 0 to `top`."""
    if top <= 0:
        return np.zeros(BINS)
    places = np.minimum(np.abs(values.ravel()) * np.float32(BINS / top), np.float32(BINS - 1))
    return np.bincount(places.astype(np.int32), minlength=BINS).astype(np.float64)


class _Watched:
    """A session that gives out inner values beside what the model answers."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        self._input = copy.graph.input[0].name
        self._names = [name for name in names if name != self._input]
        self._has_input = len(self._names) < len(names)
        told = {one.name for one in copy.graph.output}
        extra = [name for name in self._names if name not in told]
        copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in extra)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, batch: Array) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Name and value of all that is watched."""
        if self._has_input:
            yield self._input, batch
        if not self._names:  # to onnxruntime no name is every output
            return
        yield from zip(self._names, self._session.run(self._names, {self._input: batch}), strict=True)
