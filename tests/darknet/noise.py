"""Random weights of a Darknet network, the same on every machine, scaled so that every layer's answers have a spread
of about 1: naive ones make boxes of infinite size in yolov3 and yolov4."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from tests.darknet.reference import Array, convolved, heads
from workers.zoo.layers import Convolution, Network

#: What Darknet adds to a variance.
EPSILON = 1e-5


class Drawn(NamedTuple):
    """The numbers of one convolution, in the order of a weight file; without batch norm the middle ones are empty."""

    bias: Array
    scale: Array
    mean: Array
    variance: Array
    kernel: Array


def drawn(seed: int, index: int, layer: Convolution, gain: float) -> Drawn:
    """Of layer `index`. RandomState, for its streams are frozen; variances are large, so that OpenCV's other epsilon
    (1e-6) makes no difference."""
    random = np.random.RandomState(seed * 1000 + index)
    filters, normalized = layer.kernel[0], layer.normalized
    bias = 0.2 * random.standard_normal(filters)
    count = filters if normalized else 0
    scale = random.uniform(0.5, 1.5, count) * gain
    mean, variance = 0.1 * random.standard_normal(count), random.uniform(4, 16, count)
    kernel = random.standard_normal(layer.kernel) * (1.0 if normalized else gain)
    return Drawn(*(numbers.astype(np.float32) for numbers in (bias, scale, mean, variance, kernel)))


def applied(layer: Convolution, one: Drawn, source: Array) -> Array:
    """The convolution with its batch norm as Darknet writes it, unfolded."""
    made = convolved(layer, source, one.kernel)
    if layer.normalized:
        mean, root, scale = (
            x[:, None, None] for x in (one.mean, np.sqrt(one.variance + np.float32(EPSILON)), one.scale)
        )
        made = (made - mean) / root * scale
    answer: Array = made + one.bias[:, None, None]
    return answer


def gains(network: Network, seed: int, image: Array) -> Array:
    """One factor per layer (1 where there are no weights), found by running the layers one after another."""
    found = np.ones(len(network.layers), np.float32)

    def convolve(index: int, layer: Convolution, source: Array) -> Array:
        one = drawn(seed, index, layer, 1.0)
        bare = applied(layer, one._replace(bias=np.zeros_like(one.bias)), source)
        found[index] = 1 / max(float(bare.std()), 1e-3)
        answer: Array = bare * found[index] + one.bias[:, None, None]
        return answer

    heads(network, image, convolve)
    return found


def reference_heads(network: Network, seed: int, factors: Array, image: Array) -> list[Array]:
    """What the heads are given, by the reference."""
    return heads(
        network,
        image,
        lambda index, layer, source: applied(layer, drawn(seed, index, layer, float(factors[index])), source),
    )


def weight_file(network: Network, seed: int, factors: Array, version: tuple[int, int] = (0, 2)) -> bytes:
    """The bytes of a Darknet weight file with these weights."""
    layout = "<iiiQ" if version[0] * 10 + version[1] >= 2 else "<iiiI"
    pieces = [struct.pack(layout, *version, 0, 64_000)]
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Convolution):
            pieces += [x.astype("<f4").tobytes() for x in drawn(seed, index, layer, float(factors[index]))]
    return b"".join(pieces)


def picture(seed: int, height: int, width: int) -> Array:
    """Noise from 0 to 1, (3, height, width)."""
    return np.random.RandomState(seed).random_sample((3, height, width)).astype(np.float32)
