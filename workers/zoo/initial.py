"""Random weights, seeded, and settled: as if batch norm had seen pictures, so that answers are of a sensible size.

Weights that are only drawn answer zeros, or numbers beyond any range, after a hundred layers. So each layer is run on
a few made-up pictures, in order, and scaled by what came out: a channel's mean and spread are then what `Layer` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from workers.placement import Scaling
from workers.zoo.network import Array, Layer, Network, Values
from workers.zoo.writer import IR_VERSION, OPSET

#: Pictures, and their side in pixels, on which weights are settled.
_PICTURES: Final = 4
_SIDE: Final = 128
#: Least spread that is scaled up: a channel that never answers anything else stays as it is.
_LEAST: Final = 1e-4


def random_values(net: Network, seed: int, scaling: Scaling) -> dict[str, Values]:
    """Values of all layers, by name; the same for the same seed (to rounding), whatever the size of the input."""
    layers = {layer.constants[0]: (number, layer) for number, layer in enumerate(net.layers)}
    graph = net.graph.draft().graph
    known: dict[str, Any] = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer if one.raw_data}
    known[graph.input[0].name] = _pictures(seed, scaling)
    values: dict[str, Values] = {}
    for node in _needed(graph, layers):
        found = next((layers[name] for name in node.input if name in layers), None)
        if found is not None:
            number, layer = found
            known |= dict(zip(layer.constants, _drawn(layer, number, seed), strict=True))
        known[node.output[0]] = _run(node, known)
        if found is not None:
            values[layer.name], known[node.output[0]] = _settled(layer, known, known[node.output[0]])
    return values


def _pictures(seed: int, scaling: Scaling) -> Array:
    """Coloured clouds with detail at every size, [n, 3, side, side], as the model takes them."""
    rng = np.random.default_rng((seed, _SIDE))
    clouds = np.zeros((_PICTURES * 3, _SIDE, _SIDE), np.float32)
    for side in (2, 4, 8, 16, 32, 64, _SIDE):
        for cloud in clouds:
            cloud += cv2.resize(rng.standard_normal((side, side), np.float32), (_SIDE, _SIDE))
    levels = np.clip(128 + 64 * clouds / clouds.std(), 0, 255).astype(np.uint8)
    return np.stack([scaling.table()[channel][levels[channel::3]] for channel in range(3)], axis=1)


def _needed(graph: Any, layers: Iterable[str]) -> list[Any]:
    """The nodes up to the last layer, in order: what comes after it, as the decoding of boxes, is left out."""
    wanted, nodes = set(layers), list[Any]()
    for node in reversed(graph.node):
        if not wanted.isdisjoint((*node.input, *node.output)):
            wanted.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _drawn(layer: Layer, number: int, seed: int) -> Values:
    """Filters of mean 0 where they see more than one channel: SiLU and ReLU leave a mean that all channels share."""
    weights = np.random.default_rng((seed, number)).standard_normal(layer.shape, np.float32)
    flat = weights.reshape(layer.shape[0], -1)
    if layer.shape[1] > 1:
        flat -= flat.mean(axis=1, keepdims=True)
    flat /= math.sqrt(flat.shape[1])
    return weights, np.zeros(layer.shape[0], np.float32)


def _settled(layer: Layer, known: dict[str, Any], answer: Array) -> tuple[Values, Array]:
    """The layer's values and its answer, scaled; a fully connected layer as a whole, for it answers once a picture."""
    weights, biases = (known.pop(name) for name in layer.constants)
    column = (-1, *[1] * (weights.ndim - 1))
    mean, spread = np.zeros_like(biases), np.full_like(biases, answer.std())
    if weights.ndim == 4:
        mean, spread = answer.mean(axis=(0, 2, 3)), answer.std(axis=(0, 2, 3))
    spread = np.where(spread > _LEAST, spread / layer.spread, 1).astype(np.float32)
    biases = np.resize(np.array(layer.prior, np.float32), len(biases)) - mean / spread
    weights /= spread.reshape(column)
    shown = (1, *column[: answer.ndim - 1]) if answer.ndim == 4 else (1, -1)
    return (weights, biases), answer / spread.reshape(shown) + biases.reshape(shown)


def _run(node: Any, known: dict[str, Any]) -> Array:
    """One node on what is known."""
    names = list(dict.fromkeys(name for name in node.input if name))
    kinds = [helper.np_dtype_to_tensor_dtype(known[name].dtype) for name in names]
    inputs = [
        helper.make_tensor_value_info(name, kind, list(known[name].shape))
        for name, kind in zip(names, kinds, strict=True)
    ]
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "node", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answer: Array = session.run(None, {name: known[name] for name in names})[0]
    return answer
