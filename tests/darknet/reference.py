"""Darknet's layers in plain numpy, one picture at a time: slow, and written apart from the importer.

It scales random weights layer by layer, and checks what OpenCV's importer does not do (a route that splits several
layers, a shortcut of several, relu).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from workers.zoo.layers import Convolution, Dropout, Layer, Maxpool, Network, Route, Shortcut, Upsample, Yolo

Array: TypeAlias = NDArray[np.float32]
#: (index of the layer, the layer, its input) -> its output before the activation.
Convolve: TypeAlias = Callable[[int, Convolution, Array], Array]


def heads(network: Network, image: Array, convolve: Convolve) -> list[Array]:
    """What the [yolo] layers are given, each (channels, height, width); `image` (3, height, width)."""
    made: list[Array] = []
    found: list[Array] = []
    for index, layer in enumerate(network.layers):
        sources = [image if source < 0 else made[source] for source in layer.sources]
        if isinstance(layer, Yolo):
            found.append(sources[0])
        made.append(_answer(index, layer, sources, convolve))
        assert made[-1].shape == layer.shape, layer
    return found


def _answer(index: int, layer: Layer, sources: list[Array], convolve: Convolve) -> Array:
    source = sources[0]
    match layer:
        case Convolution():
            return activated(convolve(index, layer, source), layer.activation)
        case Shortcut():
            return activated(np.sum(sources, axis=0), layer.activation)
        case Route():
            return np.concatenate([np.split(one, layer.parts)[layer.part] for one in sources])
        case Upsample():
            return source.repeat(layer.factor, axis=1).repeat(layer.factor, axis=2)
        case Maxpool():
            pads = (layer.padding // 2, layer.padding - layer.padding // 2)
            padded = np.pad(source, ((0, 0), pads, pads), constant_values=-np.inf)
            return np.asarray(_windows(padded, layer.size, layer.stride).max(axis=(3, 4)))
        case Dropout() | Yolo():
            return source
    raise AssertionError(layer)


def convolved(layer: Convolution, source: Array, kernel: Array) -> Array:
    """Without bias."""
    padded = np.pad(source, ((0, 0), (layer.padding,) * 2, (layer.padding,) * 2))
    windows = np.split(_windows(padded, layer.kernel[2], layer.stride), layer.groups)
    kernels = np.split(kernel, layer.groups)
    groups = [np.tensordot(k, w, axes=([1, 2, 3], [0, 3, 4])) for k, w in zip(kernels, windows, strict=True)]
    return np.concatenate(groups)


def activated(x: Array, activation: str) -> Array:
    match activation:
        case "leaky":
            return np.where(x > 0, x, np.float32(0.1) * x)
        case "mish":
            return x * np.tanh(np.logaddexp(np.float32(0), x))
        case "swish":
            return x * _logistic(x)
        case "relu":
            return np.maximum(x, 0)
        case "logistic":
            return _logistic(x)
    assert activation == "linear"
    return x


def _logistic(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)


def _windows(padded: Array, size: int, stride: int) -> NDArray[Any]:
    """(channels, rows, columns, size, size)."""
    return sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]
