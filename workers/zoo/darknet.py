"""A Darknet detector as an ONNX graph: images [batch, 3, height, width] -> output [batch, boxes, 5 + classes].

The heads are decoded inside, in YOLOv5's layout: centre x, centre y, width, height in pixels of the input, objectness,
class scores. So every engine gives the same boxes, and `workers.yolo` takes them as they are. Nodes are named by their
section: `016_convolutional/Conv`; the decoding is all of, and only, `*_yolo/` and `output/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from workers.errors import ModelError
from workers.zoo import cfg
from workers.zoo.graph import Graph
from workers.zoo.layers import (
    Convolution,
    Dropout,
    Layer,
    Maxpool,
    Network,
    Route,
    Shape,
    Shortcut,
    Upsample,
    Yolo,
)
from workers.zoo.plan import plan
from workers.zoo.weights import Weights
from workers.zoo.writer import Tensor

#: Slope of Darknet's leaky activation below 0.
SLOPE = 0.1


@dataclass(frozen=True, slots=True)
class Detector:
    """A cfg with its weights."""

    network: Network
    weights: Weights

    @classmethod
    def load(cls, cfg_path: Path, weights_path: Path) -> Detector:
        """Read both files. Raises ModelError naming the file, the section and the line."""
        network = plan(cfg.load(cfg_path))
        return cls(network, Weights.load(weights_path, network))

    @property
    def classes(self) -> int:
        return self.network.heads[0].classes

    @property
    def boxes(self) -> int:
        """Rows of the output."""
        return sum(len(head.anchors) * head.shape[1] * head.shape[2] for head in self.network.heads)

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The graph, checked. Raises ModelError for weights that are not finite."""
        graph = Graph("darknet")
        self.weights.rewind()
        rows = list(_rows(graph, self.network, self.weights))
        with graph.scope("output"):
            together = graph.concat(rows)
        graph.output(together, "output")
        return graph.model(metadata)


def _rows(graph: Graph, network: Network, weights: Weights) -> Iterator[Tensor]:
    """The boxes of each head: (boxes, 5 + classes)."""
    image = graph.input("images", *network.input)
    made: list[Tensor] = []
    for index, layer in enumerate(network.layers):
        sources = [image if source < 0 else made[source] for source in layer.sources]
        with graph.scope(f"{index:03d}_{layer.section.kind}"):
            if isinstance(layer, Yolo):
                yield _decoded(graph, sources[0], layer, network.input)
                made.append(sources[0])
            else:
                made.append(_added(graph, layer, sources, weights))


def _added(graph: Graph, layer: Layer, sources: list[Tensor], weights: Weights) -> Tensor:
    source = sources[0]
    match layer:
        case Convolution():
            kernel, bias = weights.convolution(layer)
            made = graph.conv(source, kernel, bias, stride=layer.stride, padding=layer.padding, groups=layer.groups)
            return _activated(graph, made, layer.activation)
        case Shortcut():
            for other in sources[1:]:
                source = graph.plus(source, other)
            return _activated(graph, source, layer.activation)
        case Route():
            parts = [_part(graph, one, layer) for one in sources]
            return parts[0] if len(parts) == 1 else graph.concat(parts)
        case Upsample():
            return graph.resize(source, layer.factor)
        case Maxpool():
            before, after = layer.padding // 2, layer.padding - layer.padding // 2
            return graph.maxpool(source, layer.size, stride=layer.stride, padding=(before, before, after, after))
        case Dropout():
            return source
    raise ModelError(f"no way to write a {type(layer).__name__}")


def _activated(graph: Graph, source: Tensor, activation: str) -> Tensor:
    match activation:
        case "leaky":
            return graph.leaky(source, SLOPE)
        case "mish":
            return graph.mish(source)
        case "swish":
            return graph.swish(source)
        case "relu":
            return graph.relu(source)
        case "logistic":
            return graph.sigmoid(source)
    return source


def _part(graph: Graph, source: Tensor, layer: Route) -> Tensor:
    if layer.parts == 1:
        return source
    size = source.shape[0] // layer.parts
    return graph.slice(source, layer.part * size, (layer.part + 1) * size)


# --- heads -----------------------------------------------------------------------------------------------------------


def _decoded(graph: Graph, source: Tensor, head: Yolo, image: Shape) -> Tensor:
    """The rows of a head: anchor by anchor, and cell by cell along the rows of its map."""
    _, height, width = source.shape
    columns = 5 + head.classes
    cells = graph.transpose(graph.reshape(source, len(head.anchors), columns, height * width), 0, 2, 1)
    rows = graph.reshape(cells, len(head.anchors) * height * width, columns)
    centres, sizes, scores = (graph.slice(rows, *ends, axis=1) for ends in ((0, 2), (2, 4), (4, columns)))
    if not head.new_coords:
        centres, scores = graph.sigmoid(centres), graph.sigmoid(scores)
    sizes = graph.mul(sizes, sizes) if head.new_coords else graph.exp(sizes)
    step, shift = _grid(head, (height, width), image)
    centres = graph.plus(graph.mul(centres, step), shift)
    return graph.concat([centres, graph.mul(sizes, _anchors(head, height * width)), scores], axis=1)


def _grid(head: Yolo, size: tuple[int, int], image: Shape) -> tuple[np.ndarray, np.ndarray]:
    """What a centre (0..1 in its cell) is multiplied with, and what is added: pixels of the input, x and y."""
    stride = np.array([image[2] / size[1], image[1] / size[0]])
    y, x = np.divmod(np.arange(size[0] * size[1]), size[1])
    corners = (np.stack([x, y], axis=1) - 0.5 * (head.spread - 1)) * stride
    shift = np.tile(corners, (len(head.anchors), 1))
    return (stride * head.spread).astype(np.float32).reshape(1, 1, 2), shift.astype(np.float32)[None]


def _anchors(head: Yolo, cells: int) -> np.ndarray:
    """What the size of every row is multiplied with; new coordinates are squares of half the size."""
    sizes = np.array(head.anchors, np.float32) * (4 if head.new_coords else 1)
    return np.repeat(sizes, cells, axis=0)[None]
