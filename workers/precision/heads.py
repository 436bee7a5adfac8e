"""Which nodes of a graph stay fp32: the last weighted layer before each output, and whatever follows none of another.

That is the heads of a detector with the decoding of its boxes, the last layer and the softmax of a classifier. They are
found by how the graph is connected, so that exports, Darknet's and the zoo's are treated alike.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

#: Layers that multiply with weights of their own.
_WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def heads(graph: Any) -> frozenset[int]:
    """Places in `graph.node` (sorted, as ONNX wants it) of the nodes that stay fp32."""
    consumers: dict[str, list[int]] = defaultdict(list)
    for place, node in enumerate(graph.node):
        for name in node.input:
            consumers[name].append(place)
    shapes = {one.name: tuple(one.dims) for one in graph.initializer}
    #: Of each node, from the last to the first, whether it or what follows from it is weighted.
    leads: dict[int, bool] = {}
    stay = set()
    for place in range(len(graph.node) - 1, -1, -1):
        node = graph.node[place]
        follows = any(leads[after] for name in node.output for after in consumers[name])
        leads[place] = follows or _weighted(node, shapes)
        if not follows:
            stay.add(place)
    return frozenset(stay)


def _weighted(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """A layer that was trained. YOLOv8 takes the mean of a distribution by a convolution of 16 numbers that make one:
    that belongs to the decoding."""
    if node.op_type not in _WEIGHTED or len(node.input) < 2 or node.input[1] not in shapes:
        return False
    shape = shapes[node.input[1]]
    return math.prod(shape) != shape[1] if len(shape) > 1 else False
