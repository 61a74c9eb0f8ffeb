"""A graph as it would be without narrow floats: what it computes, apart from how it rounds."""

from dataclasses import replace
from typing import Any

from torch import fx

from .body import Body
from .text import print_body
from .types import PagedType, TensorType, TupleType, ValueType

NARROW = ("bf16", "f16")


def widened_type(kind: ValueType) -> ValueType:
    """The type with float32 for narrower floats."""
    if isinstance(kind, TupleType):
        return TupleType(tuple(map(widened_type, kind.items)))
    return replace(kind, dtype="f32") if kind.dtype in NARROW else kind


def widened(graph: fx.Graph) -> fx.Graph:
    """A copy of the graph in which every bf16 and f16 is float32, in types, attributes and loop bodies."""
    copy = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        mapping[node] = copy.node_copy(node, mapping.__getitem__)
        if isinstance(node.meta.get("type"), TensorType | PagedType | TupleType):
            mapping[node].meta["type"] = widened_type(node.meta["type"])
        if node.op == "call_function":
            mapping[node].kwargs = {name: _widened_attribute(value) for name, value in node.kwargs.items()}
    return copy


def _widened_attribute(value: Any) -> Any:
    if isinstance(value, Body):
        graph = widened(value.graph)
        return Body(graph, print_body(graph))
    return "f32" if value in NARROW else value
