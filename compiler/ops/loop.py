"""A group of pointwise ops, row reductions and shape moves that one generated kernel computes.

Its body is a graph of ordinary ops, so its meaning is the body's; two loops with the same body text share a kernel.
"""

from typing import Any

from ..ir.body import Body
from ..ir.interpret import run_graph
from ..ir.op import Cost, Traits
from ..ir.polynomial import Polynomial
from ..ir.program import type_of
from ..ir.types import TensorType, TupleType, ValueType
from .registry import ROUNDED, op
from .typing import require, traffic


@op("loop", Traits(rowwise=True), ROUNDED)
def loop(*operands: Any, body: Body) -> Any:
    """The value of ``body`` on the operands; a tuple where it returns several.

    operands: of the types of the body's inputs, in order. ``body``: a graph of pointwise ops, reductions and views.
    """
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
    calls = [n for n in body.graph.nodes if n.op == "call_function" and n.target.cost_model]
    flops = sum((n.target.cost_model(*map(type_of, n.args), **n.kwargs).flops for n in calls), Polynomial())
    return traffic(operands, TupleType(tuple(n.meta["type"] for n in body.outputs)), flops)
