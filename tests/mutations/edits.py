"""What one mutation does to a call: a wrong value in its place, and the hands that put it there."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx
from xllmc.compiler.ir.body import Body
from xllmc.compiler.ir.op import Op
from xllmc.compiler.ir.program import Program, Weight, emit, emit_weight, is_call, type_of
from xllmc.compiler.ir.text import print_body, print_value
from xllmc.compiler.ir.types import ValueType
from xllmc.compiler.ops import OPS


@dataclass(frozen=True)
class Writer:
    """Emits into one graph before ``place``."""

    graph: fx.Graph
    place: fx.Node
    program: Program | None
    """None inside a body, which reads no weights."""

    def emit(self, op: str | Op, *operands: Any, **attributes: Any) -> fx.Node:
        with self.graph.inserting_before(self.place):
            where = self.place.meta.get("where", "")
            return emit(self.graph, OPS[op] if isinstance(op, str) else op, *operands, where=where, **attributes)

    def again(self, call: fx.Node, operands: Iterable[Any] | None = None, **attributes: Any) -> fx.Node:
        """The call with other operands or attributes. TypeError where its type rule refuses them."""
        return self.emit(call.target, *(call.args if operands is None else operands), **{**call.kwargs, **attributes})

    def unchecked(self, call: fx.Node, kind: ValueType, **attributes: Any) -> fx.Node:
        """The call with other attributes, said to be of ``kind`` whatever its type rule says."""
        with self.graph.inserting_before(self.place):
            node = self.graph.create_node("call_function", call.target, call.args, {**call.kwargs, **attributes})
        node.meta = {**call.meta, "type": kind}
        return node

    def read(self, weight: Weight) -> fx.Node:
        """The node of a weight, which is declared if need be."""
        assert self.program is not None
        known = [name for name, other in self.program.weights.items() if other == weight]
        name = known[0] if known else self.program.unused_name("mutated")
        self.program.weights[name] = weight
        return emit_weight(self.graph, self.program, name)


Make = Callable[[Writer], fx.Node]


@dataclass(frozen=True)
class Edit:
    """One operator at one place."""

    operator: str
    what: str
    make: Make
    """The value that takes the call's place."""


@dataclass(frozen=True)
class Around:
    """What a mutation may see besides the call."""

    program: Program | None
    values: tuple[fx.Node, ...]
    """Values on the new side and its inputs, in graph order."""
    numbers: dict[fx.Node, int]
    """Equal for values that are computed in the same way."""
    given: frozenset[str] = frozenset()
    """Weights that the pass did not make."""

    def others(self, value: fx.Node, before: fx.Node, most: int = 2) -> list[fx.Node]:
        """The values nearest before ``before`` that have the type of ``value`` and are not it by another name."""
        found: dict[int, fx.Node] = {}
        for other in self.values:
            same = self.numbers[other] in (self.numbers[value], self.numbers.get(before))
            if other is not before and other < before and not same and type_of(other) == type_of(value):
                found[self.numbers[other]] = other
        return list(found.values())[-most:]


def numbered(graph: fx.Graph) -> dict[fx.Node, int]:
    """A number for each value, the same for values of equal expressions (views of views taken as one)."""
    numbers: dict[fx.Node, int] = {}
    known: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "output":
            continue
        if node.op != "call_function":
            numbers[node] = known.setdefault(print_value(node), len(known))
            continue
        source = node
        while is_call(source, "reshape") and (
            is_call(source.args[0], "reshape") or type_of(source.args[0]) == type_of(node)
        ):
            source = source.args[0]
        if source is not node and type_of(source) == type_of(node):
            numbers[node] = numbers[source]
            continue
        operands = [f"#{numbers[a]}" if isinstance(a, fx.Node) else print_value(a) for a in source.args]
        if node.target.traits.commutative:
            operands.sort()
        attributes = [f"{k}={print_value(v)}" for k, v in sorted(node.kwargs.items())]
        text = f"{node.target.name}({', '.join(operands + attributes)})"
        numbers[node] = known.setdefault(text, len(known))
    return numbers


def fits(call: fx.Node, operands: Iterable[Any] | None = None, **attributes: Any) -> bool:
    """Whether the call with these has the type it had."""
    given = [type_of(o) for o in (call.args if operands is None else operands)]
    try:
        return bool(call.target.result_type(*given, **{**call.kwargs, **attributes}) == type_of(call))
    except (TypeError, AttributeError, IndexError, ValueError):  # a type rule that does not expect what it was given
        return False


def with_body(call: fx.Node, name: str, change: Callable[[fx.Graph], None]) -> Make:
    """Makes the call with its body, the attribute ``name``, changed in a copy."""

    def make(writer: Writer) -> fx.Node:
        mapping: dict[fx.Node, fx.Node] = {}
        graph = fx.Graph()
        graph.output(graph.graph_copy(call.kwargs[name].graph, mapping))
        for old, new in mapping.items():
            new.meta = dict(old.meta)
        change(graph)
        for node in reversed(list(graph.nodes)):
            if node.op == "call_function" and not node.users:
                graph.erase_node(node)
        return writer.unchecked(call, type_of(call), **{name: Body(graph, print_body(graph))})

    return make


def put_in_place(
    graph: fx.Graph, call: fx.Node, edit: Edit, program: Program | None, readers: bool = True
) -> tuple[fx.Node, list[fx.Node]]:
    """Make the edit after ``call``, and let its readers read that; the value, and the calls made for it."""
    before = set(graph.nodes)
    value = edit.make(Writer(graph, call.next, program))
    made = [n for n in graph.nodes if n not in before and n.op == "call_function"]
    fresh = set(made)
    if readers:
        call.replace_all_uses_with(value, delete_user_cb=lambda user: user not in fresh)
    return value, made


def calls_of(body: Body) -> Iterator[fx.Node]:
    return (n for n in body.graph.nodes if n.op == "call_function")
