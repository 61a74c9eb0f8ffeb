"""What an exported forward function takes and gives, in order: inputs, states as tensors, weights."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import fx

from ...compiler.ir.dims import Size, symbol
from ...compiler.ir.program import Function, Program, mutates_state, type_of
from ...compiler.ir.types import PagedType, TensorType, TupleType

PARTS = ("keys", "values")
"""A state is two tensors, ``NAME.keys`` and ``NAME.values``."""


@dataclass(frozen=True)
class Argument:
    """A tensor that goes in or comes out."""

    name: str
    kind: Literal["input", "state", "weight", "result"]
    type: TensorType

    def to_json(self) -> dict[str, Any]:
        shape = [size if isinstance(size, int) else str(size) for size in self.type.shape]
        return {"name": self.name, "kind": self.kind, "dtype": self.type.dtype, "shape": shape}


@dataclass(frozen=True)
class Signature:
    arguments: tuple[Argument, ...]
    """Inputs, then states, then the weights that the function reads."""
    results: tuple[Argument, ...]
    """Results, then every state as the step left it, as ``next.NAME``."""


def signature(program: Program) -> Signature:
    """Of the forward function. Sizes that steps choose are symbols: T, S, S+1, R, B, and ``slots_G`` of group G."""
    forward = program.forward
    given = [n for n in forward.inputs if isinstance(type_of(n), TensorType)]
    inputs = [Argument(str(n.target), "input", type_of(n)) for n in given]
    states = [a for name, kind in program.states.items() for a in state_tensors(name, kind)]
    weights = [Argument(str(n.target), "weight", type_of(n)) for n in weight_reads(forward)]
    named = zip(forward.results, forward.outputs, strict=True)
    results = [Argument(name, "result", type_of(node)) for name, node in named]
    after = [replace(a, name=f"next.{a.name}") for a in states]
    return Signature((*inputs, *states, *weights), (*results, *after))


def state_tensors(name: str, kind: PagedType) -> Iterator[Argument]:
    """Keys [slots, kv_heads, key_dim], then values [slots, kv_heads, value_dim]; 32 slots are a page."""
    slots: Size = symbol(f"slots_{kind.group}")
    for part, dim in zip(PARTS, (kind.key_dim, kind.value_dim), strict=True):
        yield Argument(f"{name}.{part}", "state", TensorType(kind.dtype, (slots, kind.kv_heads, dim)))


def weight_reads(function: Function) -> list[fx.Node]:
    return [n for n in function.graph.nodes if n.op == "get_attr"]


def last_of_state(state: fx.Node) -> tuple[fx.Node, int | None]:
    """The value that holds a state when the function ends, and which of its results that is where it has several."""
    value = state
    while writer := next((u for u in value.users if mutates_state(u) and writes(u, value)), None):
        kind = type_of(writer)
        if not isinstance(kind, TupleType):
            value = writer
            continue
        index = len(kind.items) - 1
        read = next((u for u in writer.users if u.kwargs["index"] == index), None)
        if read is None:
            return writer, index
        value = read
    return value, None


def writes(call: fx.Node, state: fx.Node) -> bool:
    return call.args[call.target.traits.mutates] is state
