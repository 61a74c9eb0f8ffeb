"""Run any stage of a program with the ops' eager references: the meaning against which kernels are tested."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from .program import Function


def run_graph(graph: fx.Graph, inputs: Sequence[Any], weight: Callable[[str], torch.Tensor] | None = None) -> tuple:
    """The values of a graph's output. ``inputs`` stand for its placeholders in order; ``weight`` reads by name."""
    values: dict[fx.Node, Any] = {}
    remaining = iter(inputs)
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = next(remaining)
        elif node.op == "get_attr":
            if weight is None:
                raise ValueError(f"the graph reads weight {node.target}, but no weights were given")
            values[node] = weight(node.target)
        elif node.op == "call_function":
            operands = [values[a] if isinstance(a, fx.Node) else a for a in node.args]
            values[node] = node.target(*operands, **node.kwargs)
    return tuple(values[n] for n in graph.output_node().args[0])


def run_function(
    function: Function, inputs: dict[str, Any], weight: Callable[[str], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Results by name. ``inputs`` gives every placeholder: tensors, and ``PagedCache`` for states, changed in place."""
    missing = [n.target for n in function.inputs if n.target not in inputs]
    if missing:
        raise ValueError(f"function {function.name} requires inputs {', '.join(map(str, missing))}")
    values = run_graph(function.graph, [inputs[n.target] for n in function.inputs], weight)
    return dict(zip(function.results, values, strict=True))
