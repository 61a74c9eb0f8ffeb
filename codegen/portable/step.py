"""A program's forward function as a torch module that changes nothing: tensors in, tensors out, by a signature."""

import operator
from typing import Any

import torch
from torch import fx, nn

from ...compiler.ir.interpret import run_graph
from ...compiler.ir.program import Program
from ...compiler.ir.types import PagedType
from ...compiler.ops.attention import PagedCache
from .form import portable_graph
from .signature import last_of_state, signature


class Step(nn.Module):
    """One step. ``forward`` takes the tensors of ``signature(program).arguments`` and gives those of its results."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.names = [a.name for a in signature(program).arguments]
        self.inputs = [(str(n.target), isinstance(n.meta["type"], PagedType)) for n in program.forward.inputs]
        self.graph = _with_states(program)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self.names, tensors, strict=True))

        def value(name: str, is_state: bool) -> Any:
            return PagedCache(given[f"{name}.keys"], given[f"{name}.values"]) if is_state else given[name]

        values = run_graph(self.graph, [value(*i) for i in self.inputs], given.__getitem__)
        return tuple(t for v in values for t in ((v.keys, v.values) if isinstance(v, PagedCache) else (v,)))


def _with_states(program: Program) -> fx.Graph:
    """The portable graph, which also returns every state as it is left."""
    graph = portable_graph(program.forward.graph)
    by_name = {n.name: n for n in graph.nodes}
    output = graph.output_node()
    left = []
    for state in (n for n in program.forward.inputs if isinstance(n.meta["type"], PagedType)):
        value, index = last_of_state(state)
        made = by_name[value.name]
        with graph.inserting_before(output):
            left.append(made if index is None else graph.call_function(operator.getitem, (made, index)))
    output.args = ((*output.args[0], *left),)
    return graph
