"""Finds the layers of one ONNX graph in another by how they are connected, whatever they are called and in any order.

Order and shapes alone would not do: the two branches of a C3 block have weights of one shape, and exporters write them
in either order. A layer is known by its shape, strides and padding, by the layers before it and the way from them
(through which input of a concatenation, how many additions and poolings), and by the ways that lead on from it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from workers.errors import ModelError

#: What lies between a layer and a value: the operators that matter, in order.
Way: TypeAlias = tuple[Hashable, ...]
Origins: TypeAlias = frozenset[tuple[Way, int]]

#: Ways to one value, at most: a graph with more is no network of ours.
_MOST_WAYS: Final = 4096
_LONGEST_WAY: Final = 256
_UPSAMPLING: Final = frozenset({"Resize", "Upsample"})
_INPUT: Final = -1


@dataclass(slots=True)
class Site:
    """A layer in a graph: the names of its weights and biases ("": none), and what it is known by."""

    weights: str
    biases: str
    shape: tuple[int, ...]
    transposed: bool
    form: int
    ways: set[Way] = field(default_factory=set)

    @property
    def key(self) -> Hashable:
        return self.form, frozenset(self.ways)


class Survey:
    """The layers of a graph. `forms` numbers what layers look like; share it between the graphs to be compared.

    Raises ModelError for a graph that is not acyclic, or far from any network's.
    """

    def __init__(self, graph: Any, forms: dict[Hashable, int]) -> None:
        self.constants: dict[str, Any] = {one.name: one for one in graph.initializer}
        self.sites: list[Site] = []
        self._forms = forms
        self._origins: dict[str, Origins] = {}
        self._padding: dict[str, tuple[int, ...]] = {}
        for value in graph.input:
            if value.name not in self.constants:
                self._origins[value.name] = frozenset({((), _INPUT)})
        for node in _in_order(graph):
            self._visit(node)

    def array(self, name: str) -> NDArray[Any]:
        """The constant `name`."""
        return numpy_helper.to_array(self.constants[name])

    def _visit(self, node: Any) -> None:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            self.constants[node.output[0]] = node.attribute[0].t
            return
        if node.op_type in ("Cast", "Identity") and node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
            return
        if node.op_type in ("Conv", "Gemm") and node.input[1] in self.constants:
            self._add(node)
            return
        origins = frozenset(self._through(node))
        if len(origins) > _MOST_WAYS or any(len(way) > _LONGEST_WAY for way, _ in origins):
            raise ModelError(
                f"it has a value to which more than {_MOST_WAYS} ways lead, or one over {_LONGEST_WAY} nodes"
            )
        if node.op_type == "Pad":
            self._padding[node.output[0]] = self._pads(node)
        for output in node.output:
            self._origins[output] = origins

    def _through(self, node: Any) -> Iterator[tuple[Way, int]]:
        """Where the inputs come from, and this node behind it where it matters."""
        moving = [(place, name) for place, name in enumerate(node.input) if name in self._origins]
        for place, name in moving:
            step: Way = ()
            if node.op_type == "Concat":
                step = (("Concat", place),)
            elif node.op_type == "MaxPool" or (node.op_type == "Add" and len(moving) > 1):
                step = (node.op_type,)
            elif node.op_type in _UPSAMPLING:
                step = ("Resize",)
            yield from (((*way, *step), origin) for way, origin in self._origins[name])

    def _add(self, node: Any) -> None:
        attributes = {one.name: tuple(one.ints) or one.i or one.s for one in node.attribute}
        shape = tuple(self.constants[node.input[1]].dims)
        transposed = node.op_type == "Gemm" and not attributes.get("transB")
        origins = self._origins.get(node.input[0], frozenset())
        for way, origin in origins:
            if origin != _INPUT:
                self.sites[origin].ways.add(way)
        before = frozenset((way, origin if origin == _INPUT else self.sites[origin].form) for way, origin in origins)
        look = (node.op_type, shape[::-1] if transposed else shape, self._window(node, attributes), before)
        form = self._forms.setdefault(look, len(self._forms))
        biases = node.input[2] if len(node.input) > 2 else ""
        self._origins[node.output[0]] = frozenset({((), len(self.sites))})
        self.sites.append(Site(node.input[1], biases, shape, transposed, form))

    def _window(self, node: Any, attributes: Mapping[str, Any]) -> Hashable:
        """Strides, dilations, groups, and the padding of the layer and of a Pad before it."""
        if node.op_type == "Gemm":
            return ()
        padding = self._padding.get(node.input[0], (0,) * 4)
        pads = tuple(a + b for a, b in zip(attributes.get("pads", (0,) * 4), padding, strict=False))
        return (
            attributes.get("strides", (1, 1)),
            attributes.get("dilations", (1, 1)),
            attributes.get("group", 1),
            attributes.get("auto_pad", b"NOTSET"),
            pads,
        )

    def _pads(self, node: Any) -> tuple[int, ...]:
        """Rows and columns that a Pad adds: top, left, bottom, right."""
        if len(node.input) > 1 and node.input[1] in self.constants:
            numbers = self.array(node.input[1]).ravel().tolist()
        else:
            numbers = next((list(one.ints) for one in node.attribute if one.name == "pads"), [])
        return (*numbers[2:4], *numbers[6:8]) if len(numbers) == 8 else ()


def _in_order(graph: Any) -> list[Any]:
    """The nodes, each after those whose outputs it takes: exporters do not always write them so."""
    maker = {output: number for number, node in enumerate(graph.node) for output in node.output}
    needs = {number: {maker[name] for name in node.input if name in maker} for number, node in enumerate(graph.node)}
    try:
        return [graph.node[number] for number in TopologicalSorter(needs).static_order()]
    except CycleError:
        raise ModelError("its nodes go round in a circle") from None


def matched(ours: Any, theirs: Any) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weights and biases of `theirs` (an ONNX graph) by the name of the weights in `ours`.

    Raises ModelError naming the first layer that has no counterpart, or more than one.
    """
    forms: dict[Hashable, int] = {}
    mine = Survey(ours, forms)
    try:
        other = Survey(theirs, forms)
    except (IndexError, KeyError, ValueError, TypeError) as error:  # what a broken file may make of a node
        raise ModelError(f"its graph cannot be read: {error!r:.200}") from None
    found: dict[Hashable, list[Site]] = {}
    for site in other.sites:
        found.setdefault(site.key, []).append(site)
    values = {}
    for site in mine.sites:
        here = found.pop(site.key, [])
        if len(here) != 1:
            raise ModelError(
                f"{len(here) or 'none'} of its {len(other.sites)} layers is at the place of {site.weights}"
                f" ({'x'.join(map(str, site.shape))}); this architecture has {len(mine.sites)} layers"
            )
        values[site.weights] = _values(other, here[0])
    if found:
        left = next(iter(found.values()))[0]
        raise ModelError(f"its layer {left.weights} ({'x'.join(map(str, left.shape))}) has no place here")
    return values


def _values(survey: Survey, site: Site) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weights = survey.array(site.weights).astype(np.float32)
    if site.transposed:
        weights = np.ascontiguousarray(weights.T)
    if site.biases and site.biases not in survey.constants:
        raise ModelError(f"the biases beside {site.weights} are not constant")
    biases = survey.array(site.biases) if site.biases else np.zeros(len(weights))
    return weights, biases.astype(np.float32).reshape(-1)
