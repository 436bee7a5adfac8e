"""The numbers of a Darknet weight file, taken layer by layer."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workers.errors import ModelError
from workers.zoo.layers import Convolution, Network

Array: TypeAlias = NDArray[np.float32]

#: What Darknet adds to a variance before it divides by its root.
EPSILON: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Header:
    """`seen`: pictures that the training had seen; `size`: bytes before the first weight."""

    version: tuple[int, int, int]
    seen: int
    size: int


class Weights:
    """The weights of one network, in the order of its layers."""

    def __init__(self, data: Array, header: Header, file: str) -> None:
        self.header = header
        self._data = data
        self._file = file
        self._taken = 0

    @classmethod
    def load(cls, path: Path, network: Network) -> Weights:
        """Read the file of `network`. Raises ModelError, above all where it has other than the right length."""
        try:
            with path.open("rb") as file:
                header = read_header(file, str(path))
                rest = os.fstat(file.fileno()).st_size - header.size
                check_length(rest, network, str(path))
                # Read, not mapped: on Windows nobody could replace a mapped file.
                data = np.fromfile(file, "<f4", network.floats).astype(np.float32, copy=False)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        if len(data) != network.floats:
            raise ModelError(f"{path}: became shorter while it was read")
        return cls(data, header, str(path))

    def rewind(self) -> None:
        """The next convolution is the first one again."""
        self._taken = 0

    def convolution(self, layer: Convolution) -> tuple[Array, Array]:
        """Kernel and bias of the next convolution, its batch norm folded in; to be called in the order of the layers.

        Raises ModelError for what is not finite.
        """
        filters = layer.kernel[0]
        bias: NDArray[np.floating] = self._take(filters)
        scale, mean, variance = (self._take(filters if layer.normalized else 0) for _ in range(3))
        kernel = self._take(math.prod(layer.kernel)).reshape(layer.kernel)
        if layer.normalized:
            with np.errstate(all="ignore"):
                factor = scale / np.sqrt(variance.astype(np.float64) + EPSILON)
                bias = bias - mean * factor
                kernel = (kernel * factor[:, None, None, None]).astype(np.float32)
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            layer.section.refuse(f"its weights in {self._file} are not finite: the file is damaged, or of another cfg")
        return kernel, bias.astype(np.float32)

    def _take(self, count: int) -> Array:
        self._taken += count
        return self._data[self._taken - count : self._taken]


def read_header(file: BinaryIO, where: str) -> Header:
    """The header; `seen` has 64 bits since version 0.2. Raises ModelError."""
    start = file.read(12)
    if len(start) < 12:
        raise ModelError(f"{where}: {len(start)} bytes are no Darknet weights")
    major, minor, revision = struct.unpack("<iii", start)
    if max(major, minor) > 1000 or min(major, minor) < 0:
        raise ModelError(
            f"{where}: version {major}.{minor} is none that can be read: no Darknet weights, or transposed"
        )
    layout = "<Q" if major * 10 + minor >= 2 else "<I"
    count = file.read(struct.calcsize(layout))
    if len(count) < struct.calcsize(layout):
        raise ModelError(f"{where}: ends inside its header: no Darknet weights")
    return Header((major, minor, revision), struct.unpack(layout, count)[0], 12 + len(count))


def check_length(size: int, network: Network, where: str) -> None:
    """Raises ModelError unless `size` bytes of weights are what `network` takes; says where they would run out."""
    if size == 4 * network.floats:
        return
    found, rest = divmod(size, 4)
    tail = f" and {rest} bytes" if rest else ""
    text = f"{where}: {found} floats{tail} of weights, but the cfg takes {network.floats}"
    left = found
    for index, layer in enumerate(network.layers):
        floats = layer.floats if isinstance(layer, Convolution) else 0
        if floats > left:
            place = f"layer {index}, {layer.section.file}:{layer.section.line}: [{layer.section.kind}]"
            raise ModelError(f"{text}: they run out in {place}, which takes {floats}, and finds {left}")
        left -= floats
    raise ModelError(f"{text}: {left}{tail} are left over")
