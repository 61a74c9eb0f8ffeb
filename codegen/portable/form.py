"""Portable forms: how an op is computed by ATen operations that torch.export traces, at any number of tokens.

An op's own reference is its form where it can be traced; if it changes a state, then on a copy of it. One that loops
over data brings another, and so may a plugin's:

    @portable("acme_scan")
    def _(x: torch.Tensor, *, steps: int) -> torch.Tensor: ...

A form takes what the reference takes, gives what it gives, and changes nothing.
"""

from collections.abc import Callable
from typing import Any

from torch import fx

from ...compiler.ir.body import Body
from ...compiler.ir.op import Op
from ...compiler.ops.attention import PagedCache

Form = Callable[..., Any]

FORMS: dict[str, Form] = {}
"""By op. Not among ``Op.kernels``: an op with a kernel of its own stays out of generated loops."""


def portable(*ops: str) -> Callable[[Form], Form]:
    """Register the decorated function as the form of these ops."""

    def register(form: Form) -> Form:
        for name in ops:
            if name in FORMS:
                raise ValueError(f"op {name} has two portable forms")
            FORMS[name] = form
        return form

    return register


def form_of(op: Op) -> Form:
    """The op's registered form, or its reference, kept from changing its operands."""
    if op.name in FORMS:
        return FORMS[op.name]
    return op.reference if op.traits.mutates is None else _on_a_copy(op.reference, op.traits.mutates)


def portable_graph(graph: fx.Graph) -> fx.Graph:
    """A copy of the graph that calls the ops' forms, in loops and epilogues too; ``run_graph`` runs it."""
    copy = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        made = mapping[node] = copy.node_copy(node, mapping.__getitem__)
        if node.op == "call_function":
            made.target = form_of(node.target)
            made.kwargs = {name: _portable_attribute(value) for name, value in node.kwargs.items()}
    return copy


def _portable_attribute(value: Any) -> Any:
    return Body(portable_graph(value.graph), value.text) if isinstance(value, Body) else value


def _on_a_copy(reference: Form, position: int) -> Form:
    def form(*operands: Any, **attributes: Any) -> Any:
        state: PagedCache = operands[position]
        own = PagedCache(state.keys.clone(), state.values.clone())
        return reference(*operands[:position], own, *operands[position + 1 :], **attributes)

    return form
