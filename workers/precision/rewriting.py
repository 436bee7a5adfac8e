"""Puts rewritten nodes into a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def rewrite(graph: Any, nodes: Iterable[Any], constants: Mapping[str, Any]) -> None:
    """Replace the nodes of `graph`, and its initializers by those of `constants` that they use."""
    nodes = list(nodes)
    used = {name for node in nodes for name in node.input} | {one.name for one in graph.output}
    kept = [constant for name, constant in constants.items() if name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
