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
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
_OPSET: Final = 17
_IR_VERSION: Final = 8


class _Graph:
    """Collects nodes and constants of an ONNX graph; `add` returns the name of the node's output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: NDArray[Any] | list[int] | float) -> str:
        name = f"c{len(self.constants)}"
        array = np.asarray(value, np.float32 if isinstance(value, float) else None)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def window(self, source: str, kernel: NDArray[np.float32]) -> str:
        """Convolution of the one-channel map `source` with `kernel` [WINDOW, WINDOW]."""
        weights = self.constant(kernel.reshape(1, 1, WINDOW, WINDOW).astype(np.float32))
        return self.add("Conv", source, weights, pads=[WINDOW // 2] * 4)


def make(path: Path) -> None:
    """Write the model to `path`; always the same bytes."""
    model = build()
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def build() -> Any:
    """The model as an onnx.ModelProto."""
    graph = _Graph()
    cells = graph.add("AveragePool", "images", kernel_shape=[CELL, CELL], strides=[CELL, CELL])
    strongest = graph.add("ReduceMax", cells, axes=[1], keepdims=1)
    bright = graph.add("Relu", graph.add("Sub", strongest, graph.constant(THRESHOLD)))
    columns = [*_boxes(graph, bright), _objectness(graph, bright, strongest), *_classes(graph, cells)]
    table = graph.add("Concat", *columns, axis=1)
    rows = graph.add("Reshape", table, graph.constant(np.array([0, 5 + len(NAMES), _GRID * _GRID], np.int64)))
    graph.nodes.append(helper.make_node("Transpose", [rows], ["output"], perm=[0, 2, 1]))
    return _model(graph)


def _boxes(graph: _Graph, bright: str) -> list[str]:
    """Centre x, centre y, width, height in pixels of the spot around every cell, each [n, 1, grid, grid]."""
    ramp = np.arange(WINDOW, dtype=np.float32) - WINDOW // 2
    ones = np.ones(WINDOW, np.float32)
    mass = graph.add("Add", graph.window(bright, np.outer(ones, ones)), graph.constant(1e-6))
    places = (np.arange(_GRID, dtype=np.float32) + 0.5) * CELL
    centres, sizes = [], []
    for horizontal in (True, False):
        kernel = np.outer(ones, ramp) if horizontal else np.outer(ramp, ones)
        squares = np.outer(ones, ramp**2) if horizontal else np.outer(ramp**2, ones)
        mean = graph.add("Div", graph.window(bright, kernel), mass)
        place = places.reshape((1, 1, 1, -1) if horizontal else (1, 1, -1, 1))
        shift = graph.add("Mul", mean, graph.constant(float(CELL)))
        centres.append(graph.add("Add", shift, graph.constant(np.tile(place, _tiles(horizontal)))))
        square = graph.add("Div", graph.window(bright, squares), mass)
        variance = graph.add("Relu", graph.add("Sub", square, graph.add("Mul", mean, mean)))
        # The variance of n equal cells in a row is (n^2 - 1) / 12.
        cells = graph.add("Sqrt", graph.add("Add", _times(graph, variance, 12.0), graph.constant(1.0)))
        sizes.append(_times(graph, cells, float(CELL)))
    return [*centres, *sizes]


def _tiles(horizontal: bool) -> tuple[int, int, int, int]:
    return (1, 1, _GRID, 1) if horizontal else (1, 1, 1, _GRID)


def _objectness(graph: _Graph, bright: str, strongest: str) -> str:
    """The brightness of a cell where its neighbourhood has its only peak, elsewhere 0."""
    distance = np.hypot(*np.mgrid[-(WINDOW // 2) : WINDOW // 2 + 1, -(WINDOW // 2) : WINDOW // 2 + 1])
    smooth = graph.window(bright, np.exp(-(distance**2) / 8).astype(np.float32))
    # A slope far below any real difference decides between equal cells.
    slope = np.arange(_GRID * _GRID, dtype=np.float32).reshape(1, 1, _GRID, _GRID) * 1e-6
    ranked = graph.add("Add", smooth, graph.constant(slope))
    peak = graph.add("MaxPool", ranked, kernel_shape=[WINDOW, WINDOW], pads=[WINDOW // 2] * 4)
    is_peak = graph.add("Cast", graph.add("Equal", ranked, peak), to=TensorProto.FLOAT)
    lit = graph.add("Cast", graph.add("Greater", bright, graph.constant(0.0)), to=TensorProto.FLOAT)
    return graph.add("Mul", graph.add("Mul", is_peak, lit), strongest)


def _classes(graph: _Graph, cells: str) -> list[str]:
    """Scores of white, red, green, blue from the colour of each cell."""
    weakest = graph.add("ReduceMin", cells, axes=[1], keepdims=1)
    white = graph.add("Sub", weakest, graph.constant(0.5))
    others = np.full((3, 3, 1, 1), -0.5, np.float32)
    others[range(3), range(3)] = 1
    lead = graph.add("Sub", graph.add("Conv", cells, graph.constant(others)), graph.constant(0.4))
    return [graph.add("Sigmoid", _times(graph, logit, _STEEPNESS)) for logit in (white, lead)]


def _times(graph: _Graph, source: str, factor: float) -> str:
    return graph.add("Mul", source, graph.constant(factor))


def _model(graph: _Graph) -> Any:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", _GRID * _GRID, 5 + len(NAMES)])
    body = helper.make_graph(graph.nodes, "tiny", [images], [output], graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    model.producer_name = "gongwei"
    names = str(dict(enumerate(NAMES)))
    helper.set_model_props(model, {"task": "detect", "names": names, "stride": str(CELL)})
    return model
