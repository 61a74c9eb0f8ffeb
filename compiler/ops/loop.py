"""A group of pointwise ops, row reductions and shape moves that one generated kernel computes.

Its body is a graph of ordinary ops, so its meaning is the body's; two loops with the same body text share a kernel.
"""

from typing import Any

from torch import fx

from ..ir.interpret import run_graph
from ..ir.op import Cost, Traits
from ..ir.types import TensorType, TupleType, ValueType
from .registry import ROUNDED, op
from .typing import elements, require, traffic


class Body:
    """The graph of a loop: placeholders stand for the operands; the output returns one value or several.

    Compares and hashes by ``text``, its printed form.
    """

    def __init__(self, graph: fx.Graph, text: str) -> None:
        self.graph = graph
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"body<{self.text}>"

    @property
    def inputs(self) -> list[fx.Node]:
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    @property
    def outputs(self) -> tuple[fx.Node, ...]:
        return self.graph.output_node().args[0]


@op("loop", Traits(rowwise=True), ROUNDED)
def loop(*operands: Any, body: Body) -> Any:
    """The value of ``body``; a tuple where it returns several."""
    values = run_graph(body.graph, list(operands))
    return values[0] if len(values) == 1 else values


@loop.fake
def _(*operands: TensorType, body: Body) -> ValueType:
    expected = [n.meta["type"] for n in body.inputs]
    require(list(operands) == expected, f"loop body takes {list(map(str, expected))}, got {list(map(str, operands))}")
    types = tuple(n.meta["type"] for n in body.outputs)
    return types[0] if len(types) == 1 else TupleType(types)


@loop.cost
def _(*operands: TensorType, body: Body) -> Cost:
    calls = sum(n.op == "call_function" for n in body.graph.nodes)
    result = TupleType(tuple(n.meta["type"] for n in body.outputs))
    return traffic(operands, result, flops=calls * max(map(elements, operands)))
