"""YOLOv5 (v6.0 to v7.0) n, s, m, l, x: detection, segmentation and classification, boxes decoded in the graph.

Outputs as Ultralytics' export has them: `output0` [batch, boxes, 5 + classes] (centre x, centre y, width, height in
pixels of the input, objectness, class scores); segmentation: 32 mask coefficients more, and `output1`
[batch, 32, height / 4, width / 4]; classification: `output0` [batch, classes], logits (softmax is the worker's).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from workers.errors import UsageError
from workers.model import Task
from workers.zoo.blocks import EPSILON, PROTOTYPES, c3, classifier, conv, proto, sppf
from workers.zoo.network import Network
from workers.zoo.writer import Tensor

#: Sides (width, height) in pixels of the three anchors of each level; levels are 8, 16 and 32 pixels per cell.
Anchors: TypeAlias = tuple[tuple[tuple[float, float], ...], ...]
ANCHORS: Final[Anchors] = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
#: Pixels per cell of the coarsest level; sides of the input are multiples of it.
STRIDE: Final = 32
#: Random weights: an object at about one place in a thousand, as a picture has, and no class before another.
_OBJECTNESS: Final = -4.5


@dataclass(frozen=True, slots=True)
class Size:
    """How deep and wide a variant is, compared with `l`."""

    depth: float
    width: float

    def channels(self, of_large: int) -> int:
        return math.ceil(of_large * self.width / 8) * 8

    def repeats(self, of_large: int) -> int:
        return max(1, round(of_large * self.depth))


SIZES: Final = {
    "n": Size(0.33, 0.25),
    "s": Size(0.33, 0.5),
    "m": Size(0.67, 0.75),
    "l": Size(1.0, 1.0),
    "x": Size(1.33, 1.25),
}


def yolov5(
    name: str, size: Size, task: Task, side: tuple[int, int], classes: int, anchors: Anchors = ANCHORS
) -> Network:
    """The network for pictures of `side` (height, width). Raises UsageError for sides that it cannot take."""
    if any(length % STRIDE or length < STRIDE for length in side):
        raise UsageError(f"{name} takes sides that are multiples of {STRIDE} pixels, not {side[0]}x{side[1]}: --size")
    net = Network(name, EPSILON)
    levels = _backbone(net, size, net.graph.input("images", 3, *side))
    if task == "classify":
        net.graph.output(classifier(net, levels[-1], classes, "model.9"), "output0")
        return net
    levels = _neck(net, size, levels)
    coefficients = PROTOTYPES if task == "segment" else 0
    boxes = [_decoded(net, level, source, classes, coefficients, anchors[level]) for level, source in enumerate(levels)]
    net.graph.output(net.graph.concat(boxes), "output0")
    if task == "segment":
        net.graph.output(proto(net, levels[0], size.channels(256), "model.24.proto"), "output1")
    return net


def _backbone(net: Network, size: Size, images: Tensor) -> list[Tensor]:
    """Maps at 8, 16 and 32 pixels per cell."""
    source = conv(net, images, size.channels(64), 6, "model.0", stride=2)
    maps = []
    for stage, (channels, depth) in enumerate([(128, 3), (256, 6), (512, 9), (1024, 3)]):
        wide, number = size.channels(channels), 2 * stage + 1
        source = conv(net, source, wide, 3, f"model.{number}", stride=2)
        source = c3(net, source, wide, size.repeats(depth), f"model.{number + 1}")
        maps.append(source)
    return maps[1:]


def _neck(net: Network, size: Size, maps: list[Tensor]) -> list[Tensor]:
    """What the levels know, down to the finest and up again; no shortcuts here."""
    wide, depth = {level: size.channels(level) for level in (256, 512, 1024)}, size.repeats(3)
    fine, middle, coarse = maps
    top = conv(net, sppf(net, coarse, wide[1024], "model.9"), wide[512], 1, "model.10")
    joined = net.graph.concat([net.upsample(top), middle])
    waist = conv(net, c3(net, joined, wide[512], depth, "model.13", shortcut=False), wide[256], 1, "model.14")
    joined = net.graph.concat([net.upsample(waist), fine])
    made = [c3(net, joined, wide[256], depth, "model.17", shortcut=False)]
    for number, channels, beside in ((18, 512, waist), (21, 1024, top)):
        down = conv(net, made[-1], made[-1].shape[0], 3, f"model.{number}", stride=2)
        joined = net.graph.concat([down, beside])
        made.append(c3(net, joined, wide[channels], depth, f"model.{number + 2}", shortcut=False))
    return made


def _decoded(
    net: Network, level: int, source: Tensor, classes: int, coefficients: int, anchors: tuple[tuple[float, float], ...]
) -> Tensor:
    """Boxes (anchors x cells, 5 + classes + coefficients) of one level: anchor by anchor, row by row."""
    columns, count = 5 + classes + coefficients, len(anchors)
    prior = (*[0.0] * 4, _OBJECTNESS, *[0.0] * (classes + coefficients))
    head = net.conv(source, count * columns, 1, f"model.24.m.{level}", prior=prior)
    rows, width = head.shape[1:]
    stride, graph = 8 << level, net.graph
    with graph.scope(f"model.24.{level}"):
        table = graph.transpose(graph.reshape(head, count, columns, rows * width), 0, 2, 1)
        places = graph.sigmoid(graph.slice(table, 0, 2, axis=2))
        sides = graph.sigmoid(graph.slice(table, 2, 4, axis=2))
        # A box's centre may lie half a cell outside its cell, and its sides are up to 4 times its anchor's.
        centres = graph.plus(graph.mul(places, 2.0 * stride), _corners(rows, width, stride))
        largest = 4 * np.array(anchors, np.float32).reshape(1, count, 1, 2)
        parts = [centres, graph.mul(graph.mul(sides, sides), largest)]
        parts.append(graph.sigmoid(graph.slice(table, 4, 5 + classes, axis=2)))
        if coefficients:
            parts.append(graph.slice(table, 5 + classes, columns, axis=2))
        return graph.reshape(graph.concat(parts, axis=2), count * rows * width, columns)


def _corners(rows: int, columns: int, stride: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Where a centre is at least, [1, 1, cells, 2] in pixels: x and y half a cell before that cell."""
    y, x = np.mgrid[:rows, :columns]
    cells = np.stack((x, y), axis=-1).reshape(1, 1, rows * columns, 2)
    return ((cells - 0.5) * stride).astype(np.float32)
