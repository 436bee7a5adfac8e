"""MobileNetV2 (width 1.0) as an ONNX graph: inverted residuals with a depthwise convolution inside; logits come out."""

from __future__ import annotations

from typing import Final

from workers.errors import UsageError
from workers.zoo.network import Network
from workers.zoo.writer import Tensor

#: Pixels per cell of the last map.
STRIDE: Final = 32
#: expansion, channels, repeats, stride of the first of them: table 2 of the paper (arXiv:1801.04381).
_STAGES: Final = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FIRST: Final = 32
_LAST: Final = 1280
#: Batch norm's, as torchvision has it.
_EPSILON: Final = 1e-5


def mobilenet(name: str, side: tuple[int, int], classes: int) -> Network:
    """The network for pictures of `side` (height, width). Raises UsageError for sides that it cannot take."""
    if min(side) < STRIDE:
        raise UsageError(f"{name} takes sides of {STRIDE} pixels at least, not {side[0]}x{side[1]}: --size")
    net = Network(name, _EPSILON)
    source = _conv(net, net.graph.input("images", 3, *side), _FIRST, 3, "features.0.0", "features.0.1", stride=2)
    number = 1
    for expansion, channels, repeats, stride in _STAGES:
        for repeat in range(repeats):
            source = _inverted(net, source, expansion, channels, f"features.{number}", 1 if repeat else stride)
            number += 1
    source = _conv(net, source, _LAST, 1, f"features.{number}.0", f"features.{number}.1")
    flat = net.graph.reshape(net.graph.average(source), _LAST)
    net.graph.output(net.linear(flat, classes, "classifier.1"), "output0")
    return net


def _inverted(net: Network, source: Tensor, expansion: int, channels: int, name: str, stride: int) -> Tensor:
    """Wide, depthwise, narrow again without an activation; the input is added where the shape stays."""
    wide, number = source, 0
    if expansion > 1:
        wide = _conv(net, source, source.shape[0] * expansion, 1, f"{name}.conv.0.0", f"{name}.conv.0.1")
        number = 1
    deep = _conv(
        net,
        wide,
        wide.shape[0],
        3,
        f"{name}.conv.{number}.0",
        f"{name}.conv.{number}.1",
        stride=stride,
        groups=wide.shape[0],
    )
    linear, norm = f"{name}.conv.{number + 1}", f"{name}.conv.{number + 2}"
    made = net.conv(deep, channels, 1, linear, norm=norm)
    return net.graph.plus(source, made) if source.shape == made.shape else made


def _conv(
    net: Network, source: Tensor, channels: int, kernel: int, name: str, norm: str, *, stride: int = 1, groups: int = 1
) -> Tensor:
    made = net.conv(source, channels, kernel, name, norm=norm, stride=stride, groups=groups)
    with net.graph.scope(name):
        return net.graph.relu6(made)
