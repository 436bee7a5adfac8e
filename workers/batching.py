"""Frees the batch of an ONNX graph that was exported with a fixed one. Pure; `workers.trial` proves the outcome.

What is rewritten are constants that hold the batch: the shapes of Reshape, Expand, Tile and ConstantOfShape, and the
sizes of Resize. What cannot be rewritten is refused, or left as it is for the proof to find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from workers.engine import Shape
from workers.errors import ModelError
from workers.onnxfile import data_inputs, shape
from workers.upgrade import tidied
from workers.zoo.writer import BATCH


@dataclass(frozen=True, slots=True)
class _Facts:
    """Of the graph as it was: its fixed `batch`, by name the shapes, the integer constants and the nodes that make a
    tensor, and which tensors are made of the pictures (`pictures`): a shape that is read off a picture is none."""

    batch: int
    shapes: Mapping[str, Shape]
    constants: Mapping[str, Any]
    makers: Mapping[str, Any]
    pictures: frozenset[str]
    added: list[Any] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)

    def first(self, name: str) -> int | None:
        found = self.shapes.get(name)
        return found[0] if found else None

    def constant(self, values: Sequence[int] | np.ndarray[Any, Any], node: Any) -> str:
        """A constant of the node's own: exporters let several share one."""
        name = f"{node.name}/{BATCH}"
        self.added.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def freed(model: Any) -> Any:
    """A copy of a tidied model that takes any batch; itself where it does so already.

    Raises ModelError saying which node, or output, holds it to its batch.
    """
    (images,) = data_inputs(model)
    batch = shape(images)[0]
    if batch is None:
        return model
    free = onnx.ModelProto()
    free.CopyFrom(model)
    facts = _facts(free, images.name, batch)
    for output in free.graph.output:
        _check(output, facts)
    for node in free.graph.node:
        rule = _RULES.get(node.op_type)
        if rule is not None and node.domain in ("", "ai.onnx"):
            rule(node, facts)
    free.graph.initializer.extend(facts.added)
    free.graph.node.extend(facts.nodes)
    # Shapes of values inside hold the old batch, and a wrong one makes engines fail.
    del free.graph.value_info[:]
    for end in [*data_inputs(free), *free.graph.output]:
        if end.type.tensor_type.shape.dim:
            end.type.tensor_type.shape.dim[0].dim_param = BATCH
    return tidied(free)


def _facts(model: Any, images: str, batch: int) -> _Facts:
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # onnx knows not every operator that engines do; the shapes inside stay unknown then
        inferred = model.graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    shapes = {value.name: shape(value) for value in values if value.type.tensor_type.HasField("shape")}
    constants = {one.name: one for one in model.graph.initializer}
    made = {images}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], one.t) for one in node.attribute if one.name == "value")
        elif node.op_type not in ("Shape", "Size") and made.intersection(node.input):
            made.update(node.output)
    makers = {name: node for node in model.graph.node for name in node.output}
    return _Facts(batch, shapes, constants, makers, frozenset(made))


def _check(output: Any, facts: _Facts) -> None:
    found = shape(output) or facts.shapes.get(output.name, ())
    if found and found[0] not in (None, facts.batch):
        raise ModelError(f"output {output.name} is {list(found)}: its first dimension is not the batch")


def _values(name: str, facts: _Facts) -> list[int] | None:
    """Of an integer constant, a list of numbers; None where it is computed."""
    tensor = facts.constants.get(name)
    if tensor is None:
        return None
    values = numpy_helper.to_array(tensor)
    return [int(value) for value in values] if values.ndim == 1 and values.size else None


def _joined(node: Any, facts: _Facts) -> None:
    """A shape that is put together of constants and of what is read off a picture: [1] + [3] + [height] + ..."""
    concat = facts.makers.get(node.input[1])
    if concat is None or concat.op_type != "Concat":
        return
    first = concat.input[0]
    piece = facts.makers.get(first)
    if piece is not None and piece.op_type == "Unsqueeze":
        first = piece.input[0]
    tensor = facts.constants.get(first)
    values = [] if tensor is None else numpy_helper.to_array(tensor).ravel().tolist()
    if values == [facts.batch] and facts.first(node.input[0]) in (None, facts.batch):
        # As a node of this Reshape's own: what else reads that shape may mean the number.
        own = onnx.NodeProto()
        own.CopyFrom(concat)
        own.name = own.output[0] = f"{node.name}/joined"
        own.input[0] = facts.constant(np.array([0], np.int64), node)
        node.input[1] = own.output[0]
        facts.nodes.append(own)


def _reshape(node: Any, facts: _Facts) -> None:
    """0 where the batch comes first before and after, else -1, which takes up whatever the batch is multiplied with."""
    target = _values(node.input[1], facts)
    if node.input[0] not in facts.pictures or (target is not None and target[0] == -1):
        return
    if target is None:
        _joined(node, facts)
        return
    zeros = any(one.name == "allowzero" and one.i for one in node.attribute)
    if target[0] == 0 and not zeros:
        return
    before = facts.first(node.input[0])
    if facts.batch not in (before, target[0]) and before is not None:
        return  # the batch is elsewhere; the proof will tell
    rest: list[int | None] = list(target[1:])
    if target[0] == facts.batch and before in (None, facts.batch):
        front = 0
        if zeros and 0 in rest:
            raise ModelError(f"{node.name}: Reshape to {target}, with dimensions of 0 (allowzero)")
    else:
        front, rest = -1, list(facts.shapes.get(node.output[0], (None, None)))[1:] if -1 in rest else rest
    if None in rest:
        raise ModelError(f"{node.name}: Reshape to {target} of a tensor whose shape is not known")
    for one in [one for one in node.attribute if one.name == "allowzero"]:
        node.attribute.remove(one)
    node.input[1] = facts.constant(np.array([front, *rest], np.int64), node)


def _repeated(node: Any, facts: _Facts) -> None:
    """Expand, Tile and ConstantOfShape: a first dimension of 1 is stretched to the batch by whatever it meets."""
    index = 0 if node.op_type == "ConstantOfShape" else 1
    target = _values(node.input[index], facts)
    if facts.batch == 1 or target is None or target[0] != facts.batch:
        return
    node.input[index] = facts.constant(np.array([1, *target[1:]], np.int64), node)


def _resize(node: Any, facts: _Facts) -> None:
    """Sizes, which hold the batch, become factors, which do not."""
    sizes = _values(node.input[3], facts) if len(node.input) > 3 and node.input[3] else None
    before = facts.shapes.get(node.input[0], ())
    if sizes is None or any(one.name == "axes" for one in node.attribute):
        return
    if len(before) != len(sizes) or None in before[1:]:
        raise ModelError(f"{node.name}: Resize to {sizes} of a tensor whose shape is not known")
    known = np.array([side or 1 for side in before[1:]], np.float32)
    factors = np.array(sizes[1:], np.float32) / known
    if not np.array_equal(np.floor(known * factors), sizes[1:]):
        raise ModelError(f"{node.name}: Resize from {list(before)} to {sizes}: no factor gives exactly that")
    node.input[2] = facts.constant(np.array([1, *factors], np.float32), node)
    del node.input[3]


_RULES: Final[Mapping[str, Callable[[Any, _Facts], None]]] = {
    "Reshape": _reshape,
    "Expand": _repeated,
    "Tile": _repeated,
    "ConstantOfShape": _repeated,
    "Resize": _resize,
}
