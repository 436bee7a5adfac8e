"""Brings an ONNX graph to the form that later steps need: sorted, nodes named, opset 17 or later. Pure."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, Final

import onnx
from onnx import version_converter

from workers.errors import ModelError
from workers.onnxfile import data_inputs
from workers.zoo.writer import IR_VERSION, OPSET

#: The latest IR version that onnxruntime 1.20, the oldest that we support, loads.
LATEST_IR: Final = 10
#: Characters of another program's complaint that are passed on.
_COMPLAINT: Final = 200


def tidied(model: Any) -> Any:
    """A copy with its nodes sorted so that each comes after what it needs, every node with a name of its own, weights
    that are no inputs, and an IR version that the oldest onnxruntime loads. It answers the same.

    Raises ModelError for a graph with a circle in it.
    """
    tidy = onnx.ModelProto()
    tidy.CopyFrom(model)
    inputs = data_inputs(tidy)
    del tidy.graph.input[:]
    tidy.graph.input.extend(inputs)
    _sort(tidy.graph)
    _name(tidy.graph)
    tidy.ir_version = min(max(tidy.ir_version, IR_VERSION), LATEST_IR)
    return tidy


def opset(model: Any) -> int:
    """Of ONNX's own operators."""
    return max((int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)


def raised(model: Any) -> Any:
    """A tidied model with opset 17 at least; itself where it has that. Raises ModelError where onnx cannot do it."""
    if opset(model) >= OPSET:
        return model
    try:
        converted = version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter is C++ and raises RuntimeError, onnx's own and others
        raise ModelError(f"onnx cannot convert it from opset {opset(model)}: {complaint(error)}") from None
    if not converted.metadata_props:
        converted.metadata_props.extend(model.metadata_props)
    return tidied(converted)


def complaint(error: object) -> str:
    """The beginning of what another program says, on one line."""
    return " ".join(str(error).split())[:_COMPLAINT]


def _sort(graph: Any) -> None:
    """By need; where either may come first, as it was."""
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [{maker[name] for name in _needed(node) if name in maker} for node in nodes]
    users: defaultdict[int, list[int]] = defaultdict(list)
    for index, needed in enumerate(needs):
        for one in needed:
            users[one].append(index)
    waiting = [len(needed) for needed in needs]
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for user in users[order[-1]]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) != len(nodes):
        raise ModelError("its nodes need each other in a circle; export it again")
    if order != list(range(len(nodes))):
        ordered = [nodes[index] for index in order]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del graph.node[:]
        graph.node.extend(copies)


def _needed(node: Any) -> Iterator[str]:
    """What a node reads, also inside of its branches and loops."""
    yield from node.input
    for attribute in node.attribute:
        for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            for one in inner.node:
                yield from _needed(one)
            yield from (output.name for output in inner.output)


def _name(graph: Any) -> None:
    """A name of its own for every node: the one that it has, else its operator's, with a number where it is taken."""
    taken = {node.name for node in graph.node}
    seen: Counter[str] = Counter()
    for node in graph.node:
        stem = node.name or node.op_type
        seen[stem] += 1
        if node.name and seen[stem] == 1:
            continue
        number = seen[stem]
        while f"{stem}_{number}" in taken:
            number += 1
        node.name = f"{stem}_{number}"
        taken.add(node.name)
