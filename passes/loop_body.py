"""The body of a loop made of calls: a graph of its own, with what the calls read as placeholders.

Floats are float32 inside, and rounded only where a value leaves. Norms are written out in arithmetic.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..compiler.ir.body import Body
from ..compiler.ir.program import emit, is_call, type_of
from ..compiler.ir.text import print_body
from ..compiler.ops import OPS
from .authoring.gain import Call

NORMS = ("rms_norm", "layer_norm", "add_rms_norm", "add_layer_norm")
"""Ops that have kernels of their own, and may stand in a loop too."""


@dataclass(frozen=True)
class LoopBody:
    body: Body
    operands: tuple[fx.Node, ...]
    """The outside values that the placeholders stand for."""
    results: tuple[fx.Node, ...]
    """The calls whose values the loop returns, in the body's order."""

    @property
    def call(self) -> Call:
        return OPS["loop"], self.operands, {"body": self.body}


def make_body(members: Sequence[fx.Node], results: Sequence[fx.Node], product: fx.Node | None = None) -> LoopBody:
    """``members``: calls in graph order; ``results``: those of them whose values are wanted outside.

    ``product``: of an epilogue, the outside value that is the first placeholder, in float32.
    """
    writer = _Writer(fx.Graph())
    inside = set(members)
    first = [product] if product is not None else []
    operands = tuple(dict.fromkeys([*first, *(i for n in members for i in n.all_input_nodes if i not in inside)]))
    for number, operand in enumerate(operands):
        placeholder = writer.graph.placeholder(f"input_{number}")
        kind = type_of(operand)
        placeholder.meta["type"] = kind.with_dtype("f32") if operand is product else kind
        writer.values[operand] = placeholder
    for node in members:
        writer.write(node)
    returned = []
    for node in results:
        value = writer.values[node]
        if type_of(value) != type_of(node):
            value = writer.call("cast", value, dtype=type_of(node).dtype)
        returned.append(value)
    writer.graph.output(tuple(returned))
    for node in reversed(list(writer.graph.nodes)):
        if node.op == "call_function" and not node.users:
            writer.graph.erase_node(node)
    return LoopBody(Body(writer.graph, print_body(writer.graph)), operands, tuple(results))


class _Writer:
    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.values: dict[fx.Node, Any] = {}
        """Outside values to inside ones; an op with several results to a tuple."""
        self._widened: dict[fx.Node, fx.Node] = {}

    def call(self, op: str, *operands: Any, **attributes: Any) -> fx.Node:
        return emit(self.graph, OPS[op], *operands, **attributes)

    def wide(self, value: Any) -> Any:
        """The value in float32 if it is of a narrower float."""
        if not isinstance(value, fx.Node) or type_of(value).dtype not in ("bf16", "f16"):
            return value
        if value not in self._widened:
            self._widened[value] = self.call("cast", value, dtype="f32")
        return self._widened[value]

    def write(self, node: fx.Node) -> None:
        operands = [self.values[a] if isinstance(a, fx.Node) else a for a in node.args]
        if is_call(node, "get"):
            self.values[node] = operands[0][node.kwargs["index"]]
            return
        if not is_call(node, "slice", "reshape"):  # these leave elements out, so they come before widening
            operands = [self.wide(o) for o in operands]
        if is_call(node, "add_rms_norm", "add_layer_norm"):
            total = self.call("add", *operands[:2])
            norm = _NORMED[node.target.name.removeprefix("add_")]
            self.values[node] = (total, norm(self, total, *operands[2:], **node.kwargs))
        elif is_call(node, "rms_norm", "layer_norm"):
            self.values[node] = _NORMED[node.target.name](self, *operands, **node.kwargs)
        elif is_call(node, "cast") and type_of(operands[0]).dtype == node.kwargs["dtype"]:
            self.values[node] = operands[0]
        else:
            self.values[node] = self.call(node.target.name, *operands, **node.kwargs)


def _rms_norm(writer: _Writer, x: fx.Node, weight: fx.Node, *, eps: float) -> fx.Node:
    call = writer.call
    scale = call("rsqrt", call("add", call("mean", call("mul", x, x)), eps))
    return call("mul", call("mul", x, scale), weight)


def _layer_norm(writer: _Writer, x: fx.Node, weight: fx.Node, bias: fx.Node, *, eps: float) -> fx.Node:
    call = writer.call
    centred = call("sub", x, call("mean", x))
    scale = call("rsqrt", call("add", call("mean", call("mul", centred, centred)), eps))
    return call("add", call("mul", call("mul", centred, scale), weight), bias)


_NORMED: dict[str, Callable[..., fx.Node]] = {"rms_norm": _rms_norm, "layer_norm": _layer_norm}
