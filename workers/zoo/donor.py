"""Trained weights for a network of the zoo, from an ONNX export or a safetensors file of its PyTorch names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import numpy as np

from workers import onnxfile
from workers.errors import ModelError, UsageError
from workers.zoo import safetensors
from workers.zoo.catalogue import Architecture
from workers.zoo.likeness import matched
from workers.zoo.network import Array, Layer, Network, Values
from workers.zoo.yolov5 import ANCHORS, Anchors

#: Columns of a detector's last layer that are no class: box and objectness; and mask coefficients.
_HEAD: Final = 5
_COEFFICIENTS: Final = 32

Tensors: TypeAlias = Mapping[str, Array]


class Donor(Protocol):
    """A file of weights. `metadata`: what an exporter wrote about it. Methods raise ModelError."""

    metadata: Mapping[str, str]

    def classes(self, kind: Architecture) -> int:
        """How many classes its last layer has room for."""
        ...

    def anchors(self) -> Anchors:
        """Of its boxes, where it says; else the published ones."""
        ...

    def values(self, net: Network) -> dict[str, Values]:
        """Of every layer of `net`, by name."""
        ...


def open_donor(path: Path) -> Donor:
    """The file at `path`, by its ending. Raises ModelError."""
    if path.suffix == ".safetensors":
        return SafetensorsDonor(path)
    if path.suffix == ".onnx":
        return OnnxDonor(path)
    raise UsageError(f"{path}: weights are random, or a file that ends in .onnx or .safetensors")


class OnnxDonor:
    """An ONNX export, whatever its exporter called things: layers are found by how they are connected."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.model = onnxfile.load(path)
        self.metadata: Mapping[str, str] = onnxfile.metadata(self.model)

    def classes(self, kind: Architecture) -> int:
        outputs = self.model.graph.output
        last = [one.dim_value for one in outputs[0].type.tensor_type.shape.dim][-1:] if outputs else []
        return _classes(last[0] if last else 0, kind, self._path)

    def anchors(self) -> Anchors:
        return ANCHORS

    def values(self, net: Network) -> dict[str, Values]:
        try:
            found = matched(net.graph.draft().graph, self.model.graph)
        except ModelError as error:
            raise ModelError(f"{self._path}: is no {net.name}: {error}") from None
        return {layer.name: found[layer.constants[0]] for layer in net.layers}


class SafetensorsDonor:
    """Tensors by PyTorch's names, batch norms folded here where the file still has them apart."""

    def __init__(self, path: Path) -> None:
        self.metadata: Mapping[str, str] = {}
        self._path = path
        self._tensors = safetensors.read(path)

    def classes(self, kind: Architecture) -> int:
        layer = kind.build().layers[-1 if kind.task == "classify" else _head(kind)]
        weights = self._tensors.get(f"{self._prefix(layer)}{layer.name}.weight")
        if weights is None or not weights.ndim:
            raise ModelError(f"{self._path}: is no {kind.name}: it has no {layer.name}.weight")
        outputs = len(weights)
        return _classes(outputs if kind.task == "classify" else outputs // len(ANCHORS[0]), kind, self._path)

    def anchors(self) -> Anchors:
        found = next((array for name, array in self._tensors.items() if name.endswith("model.24.anchors")), None)
        if found is None or found.shape != (3, 3, 2):
            return ANCHORS
        pixels = found * np.array([8, 16, 32], np.float32)[:, None, None]
        return tuple(tuple((float(width), float(height)) for width, height in level) for level in pixels)

    def values(self, net: Network) -> dict[str, Values]:
        prefix = self._prefix(net.layers[0])
        return {layer.name: self._layer(net, layer, prefix) for layer in net.layers}

    def _prefix(self, layer: Layer) -> str:
        """What stands before every name: state dicts of wrapped models have a `model.` or `module.` more."""
        ending = f"{layer.name}.weight"
        return min((name.removesuffix(ending) for name in self._tensors if name.endswith(ending)), key=len, default="")

    def _layer(self, net: Network, layer: Layer, prefix: str) -> Values:
        weights = self._tensor(f"{prefix}{layer.name}.weight", layer.shape, net)
        outputs = layer.shape[:1]
        norm = f"{prefix}{layer.norm}"
        if not layer.norm or f"{norm}.running_var" not in self._tensors:
            return weights, self._tensor(f"{prefix}{layer.name}.bias", outputs, net)
        parts = ("weight", "bias", "running_mean", "running_var")
        scale, shift, mean, variance = (self._tensor(f"{norm}.{part}", outputs, net) for part in parts)
        factor = (scale / np.sqrt(variance.astype(np.float64) + net.epsilon)).astype(np.float32)
        return weights * factor[:, None, None, None], shift - mean * factor

    def _tensor(self, name: str, shape: tuple[int, ...], net: Network) -> Array:
        found = self._tensors.get(name)
        if found is None or found.shape != shape:
            has = "has none" if found is None else f"its own is {'x'.join(map(str, found.shape))}"
            raise ModelError(f"{self._path}: is no {net.name}: {name} must be {'x'.join(map(str, shape))}, and {has}")
        return found


def _head(kind: Architecture) -> int:
    """Which layer is a detector's first output."""
    return next(number for number, layer in enumerate(kind.build().layers) if layer.name == "model.24.m.0")


def _classes(columns: int, kind: Architecture, path: Path) -> int:
    others = 0 if kind.task == "classify" else _HEAD + (_COEFFICIENTS if kind.task == "segment" else 0)
    if columns <= others:
        raise ModelError(f"{path}: is no {kind.name}: its last layer has {columns} columns, and needs over {others}")
    return columns - others
