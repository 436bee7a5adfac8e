"""A graph of the zoo as a PyTorch module: what is trained is the very graph that ships, with batch norm still apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from workers.zoo.network import Layer, Network, Values

#: Computes one value from those that are there.
Step: TypeAlias = tuple[str, Callable[..., Tensor], tuple[str, ...]]

#: Batch norm as YOLOv5 has it.
_EPSILON: Final = 1e-3
_MOMENTUM: Final = 0.03


class Net(nn.Module):
    """Runs a zoo network up to the values that `ends` names: layers (their outputs) or outputs of the graph.

    `forward` takes pictures [batch, 3, height, width], 0 to 1, and returns these values in that order.
    """

    def __init__(self, network: Network, ends: Sequence[str]) -> None:
        super().__init__()
        self.layers = network.layers
        self.made = nn.ModuleDict({_key(layer): _module(layer) for layer in network.layers})
        blank: dict[str, Values] = {
            layer.name: (np.zeros(layer.shape, np.float32), np.zeros(layer.shape[:1], np.float32))
            for layer in network.layers
        }
        graph = network.model(blank, {}).graph
        self._input = graph.input[0].name
        self._steps, outputs = self._program(graph)
        self._ends = [outputs.get(end, end) for end in ends]
        self._steps = _needed(self._steps, self._ends)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        values = {self._input: pictures}
        for name, step, sources in self._steps:
            values[name] = step(*(values[source] for source in sources))
        return [values[end] for end in self._ends]

    def conv(self, name: str) -> nn.Conv2d:
        """The convolution of a layer."""
        module = self.made[name.replace(".", "_")]
        assert isinstance(module, nn.Sequential) and isinstance(module[0], nn.Conv2d)
        return module[0]

    def folded(self) -> dict[str, Values]:
        """Weights and biases by layer, batch norm folded into them, as `Network.model` takes them."""
        return {layer.name: _folded(self.made[_key(layer)]) for layer in self.layers}

    def _program(self, graph: Any) -> tuple[list[Step], dict[str, str]]:
        """One step per node, and the value that each layer makes."""
        constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        layers = {layer.constants[0]: layer for layer in self.layers}
        steps: list[Step] = []
        outputs: dict[str, str] = {}
        for node in graph.node:
            if node.op_type in ("Conv", "Gemm"):
                layer = layers[node.input[1]]
                module = self.made[_key(layer)]
                if node.op_type == "Conv":
                    _complete(module[0], _attributes(node))
                steps.append((node.output[0], module, (node.input[0],)))
                outputs[layer.name] = node.output[0]
            else:
                steps.append(_step(node, constants))
        return _fused(steps), outputs


def _key(layer: Layer) -> str:
    """Names of modules have no dots."""
    return layer.name.replace(".", "_")


def _module(layer: Layer) -> nn.Module:
    """A convolution with its batch norm, or a fully connected layer; padding and stride come from the graph."""
    outputs, inputs, *kernel = layer.shape
    if not kernel:
        return nn.Sequential(nn.Linear(inputs, outputs))
    conv = nn.Conv2d(inputs, outputs, kernel[0], bias=not layer.norm)
    if not layer.norm:
        nn.init.normal_(conv.weight, std=0.01)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        return nn.Sequential(conv)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, _EPSILON, _MOMENTUM))


def _complete(conv: nn.Module, attributes: dict[str, Any]) -> None:
    assert isinstance(conv, nn.Conv2d) and attributes.get("group", 1) == 1
    top, left, bottom, right = attributes["pads"]
    assert (top, left) == (bottom, right), "padding differs from side to side"
    conv.stride = tuple(attributes["strides"])
    conv.padding = (top, left)


def _folded(module: nn.Module) -> Values:
    assert isinstance(module, nn.Sequential)
    layer, *norm = module
    weights = layer.weight.detach().double()
    biases = torch.zeros(len(weights)).to(weights) if layer.bias is None else layer.bias.detach().double()
    for one in norm:
        scale = one.weight.detach().double() / torch.sqrt(one.running_var.double() + one.eps)
        weights = weights * scale[:, None, None, None]
        biases = one.bias.detach().double() + (biases - one.running_mean.double()) * scale
    return weights.float().cpu().contiguous().numpy(), biases.float().cpu().numpy()


# --- nodes -----------------------------------------------------------------------------------------------------------


def _step(node: onnx.NodeProto, constants: dict[str, Any]) -> Step:
    """Raises KeyError for an operation that no network here has."""
    fixed = [constants[name] for name in node.input if name in constants]
    free = tuple(name for name in node.input if name and name not in constants)
    return node.output[0], _OPERATIONS[node.op_type](_attributes(node), fixed), free


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _concat(attributes: dict[str, Any], fixed: list[Any]) -> Callable[..., Tensor]:
    return lambda *maps: torch.cat(maps, attributes["axis"])


def _maxpool(attributes: dict[str, Any], fixed: list[Any]) -> Callable[..., Tensor]:
    kernel, strides, pads = (attributes[name] for name in ("kernel_shape", "strides", "pads"))
    return lambda source: functional.max_pool2d(source, kernel, strides, pads[:2])


def _resize(attributes: dict[str, Any], fixed: list[Any]) -> Callable[..., Tensor]:
    scale = float(fixed[-1][-1])
    return lambda source: functional.interpolate(source, scale_factor=scale, mode="nearest")


def _reshape(attributes: dict[str, Any], fixed: list[Any]) -> Callable[..., Tensor]:
    shape = [int(number) for number in fixed[0]]
    return lambda source: source.reshape(source.shape[0], *shape[1:])


def _transpose(attributes: dict[str, Any], fixed: list[Any]) -> Callable[..., Tensor]:
    return lambda source: source.permute(*attributes["perm"])


def _slice(attributes: dict[str, Any], fixed: list[Any]) -> Callable[..., Tensor]:
    start, end, axis = (int(number[0]) for number in fixed[:3])
    return lambda source: source.narrow(axis, start, end - start)


def _arithmetic(operation: Callable[..., Tensor]) -> Callable[..., Callable[..., Tensor]]:
    def make(attributes: dict[str, Any], fixed: list[Any]) -> Callable[..., Tensor]:
        if not fixed:
            return operation
        constant = torch.from_numpy(np.array(fixed[0]))
        return lambda source: operation(source, constant.to(source.device))

    return make


_OPERATIONS: Final[dict[str, Callable[[dict[str, Any], list[Any]], Callable[..., Tensor]]]] = {
    "Concat": _concat,
    "MaxPool": _maxpool,
    "Resize": _resize,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Add": _arithmetic(torch.add),
    "Mul": _arithmetic(torch.mul),
    "Sigmoid": lambda attributes, fixed: torch.sigmoid,
    "Identity": lambda attributes, fixed: lambda source: source,
    "GlobalAveragePool": lambda attributes, fixed: lambda source: source.mean((2, 3), keepdim=True),
}


def _fused(steps: list[Step]) -> list[Step]:
    """x * sigmoid(x) as one step, which keeps one value for the way back instead of two."""
    sigmoids = {name: sources[0] for name, step, sources in steps if step is torch.sigmoid}
    return [
        (name, functional.silu, sources[:1])
        if step is torch.mul and len(sources) == 2 and sigmoids.get(sources[1]) == sources[0]
        else (name, step, sources)
        for name, step, sources in steps
    ]


def _needed(steps: list[Step], ends: list[str]) -> list[Step]:
    """The steps that lead to `ends`."""
    wanted, kept = set(ends), []
    for step in reversed(steps):
        if step[0] in wanted:
            wanted.update(step[2])
            kept.append(step)
    return kept[::-1]
