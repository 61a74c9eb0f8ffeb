"""Check that a program is well formed: every pass's result goes through here before it counts."""

from collections.abc import Iterator

from torch import fx

from .op import Op
from .program import Function, Program, mutates_state, retype
from .types import PagedType


class VerificationError(Exception):
    """The program breaks a rule; the message names function, value and rule."""


def verify(program: Program) -> None:
    """Raise ``VerificationError`` at the first broken rule.

    Checked: values defined before use and in their own graph; recorded types equal to inferred ones (so shapes, dtypes
    and symbols hold); weights declared and of their type; states changed in one chain, never read after a change
    through the older value; results named; names unique.
    """
    for function in program.functions.values():
        for fault in _faults(program, function):
            raise VerificationError(f"{function.name}: {fault}")


def _faults(program: Program, function: Function) -> Iterator[str]:
    seen: set[fx.Node] = set()
    names: set[str] = set()
    for node in function.graph.nodes:
        for used in node.all_input_nodes:
            if used not in seen:
                yield f"%{node.name} uses %{used.name} before it is defined"
        seen.add(node)
        if node.op == "output":
            continue
        if node.name in names:
            yield f"%{node.name} is defined twice"
        names.add(node.name)
        if "type" not in node.meta:
            yield f"%{node.name} has no type"
        elif node.op == "get_attr":
            yield from _weight_faults(program, node)
        elif node.op == "call_function":
            yield from _call_faults(program, node)
        elif node.op != "placeholder":
            yield f"%{node.name} is a {node.op} node; only inputs, weights, calls and one output are allowed"
    yield from _state_faults(function)
    if len(function.outputs) != len(function.results):
        yield f"returns {len(function.outputs)} values for results {', '.join(function.results)}"


def _weight_faults(program: Program, node: fx.Node) -> Iterator[str]:
    weight = program.weights.get(str(node.target))
    if weight is None:
        yield f"weight @{node.target} is not declared"
    elif weight.type != node.meta["type"]:
        yield f"weight @{node.target} is {weight.type}, but the graph reads {node.meta['type']}"


def _call_faults(program: Program, node: fx.Node) -> Iterator[str]:
    if not isinstance(node.target, Op):
        yield f"%{node.name} calls {node.target}, which is not a registered op"
        return
    try:
        inferred = retype(node)
    except TypeError as error:
        yield f"%{node.name} ({node.meta.get('where', '')}): {error}"
        return
    if inferred != node.meta["type"]:
        place = f" ({node.meta['where']})" if node.meta.get("where") else ""
        yield f"%{node.name} is recorded as {node.meta['type']}, but {node.target.name} gives {inferred}{place}"


def _state_faults(function: Function) -> Iterator[str]:
    order = {node: i for i, node in enumerate(function.graph.nodes)}
    for node in function.graph.nodes:
        if not isinstance(node.meta.get("type"), PagedType):
            continue
        changes = [u for u in node.users if changes_state(u, node)]
        if len(changes) > 1:
            yield f"state %{node.name} is changed by {' and '.join('%' + c.name for c in changes)}; chain them"
        for reader in node.users:
            if changes and reader not in changes and order[reader] > order[changes[0]]:
                yield f"%{reader.name} reads state %{node.name} after %{changes[0].name} changed it"


def changes_state(user: fx.Node, state: fx.Node) -> bool:
    """Whether ``user`` is a call that changes ``state``."""
    return mutates_state(user) and user.args[user.target.traits.mutates] is state
