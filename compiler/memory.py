"""The memory plan: every value of a step has a place in an arena, and values that do not live together share it.

Sizes follow a symbol (tokens, rows, sequences), so there is an arena for each, planned in bytes per unit; the runtime
multiplies by the capacity it chooses at load. Places are found largest first, at the lowest free offset (best known as
greedy by size: Pisarchyk & Lee, 2020).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from ..runtime.artifact.schema import BufferEntry
from .ir.dims import Dim, product, whole
from .ir.op import Op
from .ir.program import Function, Program, is_call, mutates_state, type_of
from .ir.types import TensorType, TupleType

ALIGNMENT = 64


@dataclass(frozen=True)
class Value:
    """A tensor that a call makes: the node, and which of its results."""

    node: fx.Node
    index: int

    @property
    def name(self) -> str:
        return self.node.name if self.index < 0 else f"{self.node.name}.{self.index}"


@dataclass(frozen=True)
class Scratch:
    """Memory that the kernels of one call need among themselves."""

    node: fx.Node
    name: str
    type: TensorType

    @property
    def value_name(self) -> str:
        """Unlike any value's: those have no colon."""
        return f"{self.node.name}:{self.name}"


@dataclass(frozen=True)
class Range:
    name: str
    scale: str | None
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    arenas: dict[str, int]
    """Symbol, or ``fixed``, to bytes per unit."""
    buffers: dict[str, BufferEntry]
    """By value name, with the function's name before it."""


def source_of(node: fx.Node) -> Value | fx.Node:
    """The value whose bytes ``node`` is: behind views; a function input, weight or state stands for itself."""
    index = -1
    while isinstance(node.target, Op) and node.target.traits.view:
        if is_call(node, "get"):
            index = node.kwargs["index"]
        node = node.args[0]
    return Value(node, index) if node.op == "call_function" else node


def state_name(node: fx.Node) -> str:
    """The function input that a state value is, behind the calls that changed it."""
    while node.op != "placeholder":
        source = source_of(node)
        call = source.node if isinstance(source, Value) else source
        assert mutates_state(call), call
        node = call.args[call.target.traits.mutates]
    return str(node.target)


def plan_memory(program: Program, scratches: Sequence[Scratch] = ()) -> MemoryPlan:
    """Places for all functions. What ``forward`` returns stays untouched while the later functions run."""
    kept: dict[str, int] = {}
    arenas: dict[str, int] = {}
    buffers: dict[str, BufferEntry] = {}
    for function in program.functions.values():
        ranges = [*live_ranges(function), *scratch_ranges(function, scratches)]
        ends = place(ranges, kept, buffers, function.name)
        for scale, end in ends.items():
            arenas[scale] = max(arenas.get(scale, 0), end)
        if function is program.forward:
            for output in function.outputs:
                entry = buffers[f"{function.name}:{source_of(output).name}"]
                kept[entry.scale or "fixed"] = max(kept.get(entry.scale or "fixed", 0), entry.offset + entry.bytes)
    return MemoryPlan(arenas, buffers)


def live_ranges(function: Function) -> list[Range]:
    """From the call that makes a value to the last that reads it; results live to the end, from the start."""
    order = {n: i for i, n in enumerate(function.graph.nodes)}
    last: dict[Value, int] = {}
    for node in function.graph.nodes:
        for used in node.all_input_nodes:
            value = source_of(used)
            if isinstance(value, Value):
                last[value] = max(last.get(value, 0), order[node])
    results = {source_of(o) for o in function.outputs}
    ranges = []
    for node in function.calls:
        assert isinstance(node.target, Op)
        if node.target.traits.view:
            continue
        kinds = type_of(node).items if isinstance(type_of(node), TupleType) else (type_of(node),)
        for index, kind in enumerate(kinds):
            if not isinstance(kind, TensorType):
                continue
            value = Value(node, index if isinstance(type_of(node), TupleType) else -1)
            first = -1 if value in results else order[node]
            scale, size = unit(kind)
            ranges.append(Range(value.name, scale, size, first, last.get(value, order[node])))
    return ranges


def scratch_ranges(function: Function, scratches: Sequence[Scratch]) -> list[Range]:
    """Each lives while its call's kernels run."""
    order = {n: i for i, n in enumerate(function.graph.nodes)}
    wanted = [s for s in scratches if s.node in order]
    return [Range(s.value_name, *unit(s.type), order[s.node], order[s.node]) for s in wanted]


def unit(kind: TensorType) -> tuple[str | None, int]:
    """The symbol a tensor grows with, and its bytes per unit of it, aligned."""
    scale: str | None = None
    factor = 1
    for size in kind.shape:
        if isinstance(size, Dim):
            if scale is not None or len(size.symbols) != 1:
                raise ValueError(f"a value of type {kind} grows with more than one symbol")
            scale, factor = size.symbols[0], size.factor
    fixed = product(s for s in kind.shape if isinstance(s, int))
    size = whole(kind.bytes_of((fixed,))) * factor
    return scale, -(-size // ALIGNMENT) * ALIGNMENT


def place(
    ranges: Iterable[Range], kept: Mapping[str, int], buffers: dict[str, BufferEntry], function: str
) -> dict[str, int]:
    """Add an entry for each range to ``buffers``, above what is kept; returns each arena's end."""
    placed: list[tuple[Range, BufferEntry]] = []
    ends: dict[str, int] = dict(kept)
    for wanted in sorted(ranges, key=lambda r: (-r.bytes, r.first, r.name)):
        base = kept.get(wanted.scale or "fixed", 0)
        beside = sorted(
            (e.offset, e.offset + e.bytes)
            for r, e in placed
            if r.scale == wanted.scale and r.first <= wanted.last and wanted.first <= r.last
        )
        offset = base
        for start, end in beside:
            if offset + wanted.bytes <= start:
                break
            offset = max(offset, end)
        name = f"{function}:{wanted.name}"
        entry = BufferEntry(name=name, scale=wanted.scale, offset=offset, bytes=wanted.bytes)
        placed.append((wanted, entry))
        buffers[name] = entry
        key = wanted.scale or "fixed"
        ends[key] = max(ends.get(key, 0), offset + wanted.bytes)
    return ends
