"""Makes the tiny test detector: a convolutional net set by hand that finds bright spots and says their colour.

It speaks YOLOv5's layout (images [n, 3, 160, 160] -> output [n, 1600, 9]), takes any batch, needs no weights from
anywhere and about a millisecond, and its answers depend on the picture, so that a test can tell whose answer it holds.

Its classes, by number: 0 white, 1 red, 2 green, 3 blue. A spot is white where its weakest channel is above half of full
brightness, and has a colour where that channel leads the mean of the other two by more than 0.4 of it.

How: brightness over a threshold on a grid of 4 x 4 pixels; a spot is where its smoothed map has a local maximum; its
centre and size are the mean and the variance of the brightness around that cell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from workers.metadata import PRECISION
from workers.zoo.graph import Graph
from workers.zoo.writer import Tensor

#: Side of the input, and of a cell, in pixels.
SIZE: Final = 160
CELL: Final = 4
#: Side of the neighbourhood of a cell, in cells: a spot must fit, and no second one may be in it.
WINDOW: Final = 11
#: Level (0..1) from which a picture is bright; the grey of a letterbox (114 / 255) is not.
THRESHOLD: Final = 0.7
#: The classes, by number; rules of a line file (`ng`, `required`) name these.
NAMES: Final = ("white", "red", "green", "blue")
_GRID: Final = SIZE // CELL
#: How steeply the class scores follow the colour.
_STEEPNESS: Final = 12.0


def make(path: Path) -> None:
    """Write the model to `path`; always the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build().SerializeToString(deterministic=True))


def build() -> onnx.ModelProto:
    """The model, checked."""
    graph = Graph("tiny")
    images = graph.input("images", 3, SIZE, SIZE)
    cells = graph.add("AveragePool", [images], (3, _GRID, _GRID), kernel_shape=[CELL, CELL], strides=[CELL, CELL])
    strongest = _over_colours(graph, "ReduceMax", cells)
    bright = graph.relu(graph.plus(strongest, -THRESHOLD))
    columns = [*_boxes(graph, bright), _objectness(graph, bright, strongest), *_classes(graph, cells)]
    rows = graph.reshape(graph.concat(columns), 5 + len(NAMES), _GRID * _GRID)
    graph.output(graph.transpose(rows, 1, 0), "output")
    said = {"task": "detect", "names": str(dict(enumerate(NAMES))), "stride": str(CELL), PRECISION: "fp32"}
    return graph.model(said)


def _window(graph: Graph, source: Tensor, kernel: NDArray[np.floating]) -> Tensor:
    """Convolution of the one-channel map `source` with `kernel` [WINDOW, WINDOW]."""
    return graph.conv(source, kernel.reshape(1, 1, WINDOW, WINDOW).astype(np.float32), padding=WINDOW // 2)


def _over_colours(graph: Graph, kind: str, cells: Tensor) -> Tensor:
    return graph.add(kind, [cells], (1, _GRID, _GRID), axes=[1], keepdims=1)


def _boxes(graph: Graph, bright: Tensor) -> list[Tensor]:
    """Centre x, centre y, width, height in pixels of the spot around every cell, each (1, grid, grid)."""
    ramp = np.arange(WINDOW, dtype=np.float32) - WINDOW // 2
    ones = np.ones(WINDOW, np.float32)
    mass = graph.plus(_window(graph, bright, np.outer(ones, ones)), 1e-6)
    places = (np.arange(_GRID, dtype=np.float32) + 0.5) * CELL
    centres, sizes = [], []
    for horizontal in (True, False):
        kernel = np.outer(ones, ramp) if horizontal else np.outer(ramp, ones)
        squares = np.outer(ones, ramp**2) if horizontal else np.outer(ramp**2, ones)
        mean = _quotient(graph, _window(graph, bright, kernel), mass)
        place = places.reshape((1, 1, 1, -1) if horizontal else (1, 1, -1, 1))
        centres.append(graph.plus(graph.mul(mean, float(CELL)), np.tile(place, _tiles(horizontal))))
        square = _quotient(graph, _window(graph, bright, squares), mass)
        variance = graph.relu(graph.plus(square, graph.mul(graph.mul(mean, mean), -1.0)))
        # The variance of n equal cells in a row is (n^2 - 1) / 12.
        cells = graph.add("Sqrt", [graph.plus(graph.mul(variance, 12.0), 1.0)], variance.shape)
        sizes.append(graph.mul(cells, float(CELL)))
    return [*centres, *sizes]


def _quotient(graph: Graph, source: Tensor, other: Tensor) -> Tensor:
    return graph.add("Div", [source, other], source.shape)


def _tiles(horizontal: bool) -> tuple[int, int, int, int]:
    return (1, 1, _GRID, 1) if horizontal else (1, 1, 1, _GRID)


def _objectness(graph: Graph, bright: Tensor, strongest: Tensor) -> Tensor:
    """The brightness of a cell where its neighbourhood has its only peak, elsewhere 0."""
    distance = np.hypot(*np.mgrid[-(WINDOW // 2) : WINDOW // 2 + 1, -(WINDOW // 2) : WINDOW // 2 + 1])
    smooth = _window(graph, bright, np.exp(-(distance**2) / 8))
    # A slope far below any real difference decides between equal cells.
    slope = np.arange(_GRID * _GRID, dtype=np.float32).reshape(1, 1, _GRID, _GRID) * np.float32(1e-6)
    ranked = graph.plus(smooth, slope)
    is_peak = _truth(graph, "Equal", ranked, graph.maxpool(ranked, WINDOW, padding=WINDOW // 2))
    lit = _truth(graph, "Greater", bright, graph.constant(0.0))
    return graph.mul(graph.mul(is_peak, lit), strongest)


def _truth(graph: Graph, kind: str, source: Tensor, other: Tensor | str) -> Tensor:
    """1 where the comparison holds, elsewhere 0."""
    held = graph.add(kind, [source, other], source.shape)
    return graph.add("Cast", [held], source.shape, to=onnx.TensorProto.FLOAT)


def _classes(graph: Graph, cells: Tensor) -> list[Tensor]:
    """Scores of white, red, green, blue from the colour of each cell."""
    white = graph.plus(_over_colours(graph, "ReduceMin", cells), -0.5)
    others = np.full((3, 3, 1, 1), -0.5, np.float32)
    others[range(3), range(3)] = 1
    lead = graph.plus(graph.conv(cells, others), -0.4)
    return [graph.sigmoid(graph.mul(logit, _STEEPNESS)) for logit in (white, lead)]
