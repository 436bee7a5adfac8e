"""The blocks of YOLOv5 (v6 and v7): Conv, C3, SPPF, Proto and the classifier's head.

Layers are named as PyTorch names them there, so that a file of weights finds them.
"""

from __future__ import annotations

from typing import Final

from workers.zoo.network import Network
from workers.zoo.writer import Tensor

#: Channels between a classifier's last map and its fully connected layer, and of mask prototypes.
EMBEDDING: Final = 1280
PROTOTYPES: Final = 32
#: Batch norm's, as YOLOv5 sets it.
EPSILON: Final = 1e-3
#: Spread of what random weights answer before a SiLU. There it is nearly a straight line: at a spread of 1 a picture of
#: a little more contrast than others would answer a hundred times as much, after so many layers.
_SPREAD: Final = 0.05


def conv(net: Network, source: Tensor, channels: int, kernel: int, name: str, *, stride: int = 1) -> Tensor:
    """Convolution, folded batch norm, SiLU."""
    # The first layer of all halves the picture with an even kernel, and pads as if it were 5.
    padding = (kernel - 1) // 2
    layer, norm = f"{name}.conv", f"{name}.bn"
    made = net.conv(source, channels, kernel, layer, norm=norm, stride=stride, padding=padding, spread=_SPREAD)
    with net.graph.scope(name):
        return net.graph.swish(made)


def c3(net: Network, source: Tensor, channels: int, depth: int, name: str, *, shortcut: bool = True) -> Tensor:
    """Half of the channels through `depth` bottlenecks, the other half around them."""
    half = channels // 2
    inner = conv(net, source, half, 1, f"{name}.cv1")
    for number in range(depth):
        narrow = conv(net, inner, half, 1, f"{name}.m.{number}.cv1")
        wide = conv(net, narrow, half, 3, f"{name}.m.{number}.cv2")
        inner = net.graph.plus(inner, wide) if shortcut else wide
    around = conv(net, source, half, 1, f"{name}.cv2")
    return conv(net, net.graph.concat([inner, around]), channels, 1, f"{name}.cv3")


def sppf(net: Network, source: Tensor, channels: int, name: str) -> Tensor:
    """Maxima over windows of 5, 9 and 13 pixels beside the map itself."""
    maps = [conv(net, source, source.shape[0] // 2, 1, f"{name}.cv1")]
    for _ in range(3):
        maps.append(net.graph.maxpool(maps[-1], 5, padding=2))
    return conv(net, net.graph.concat(maps), channels, 1, f"{name}.cv2")


def proto(net: Network, source: Tensor, channels: int, name: str) -> Tensor:
    """Mask prototypes at a quarter of the picture's size."""
    wide = net.upsample(conv(net, source, channels, 3, f"{name}.cv1"))
    return conv(net, conv(net, wide, channels, 3, f"{name}.cv2"), PROTOTYPES, 1, f"{name}.cv3")


def classifier(net: Network, source: Tensor, classes: int, name: str) -> Tensor:
    """Logits (classes,): a wide convolution, the mean over the map, one fully connected layer."""
    wide = conv(net, source, EMBEDDING, 1, f"{name}.conv")
    return net.linear(net.graph.reshape(net.graph.average(wide), EMBEDDING), classes, f"{name}.linear")
