"""Calls of ops whose kernels came with a package, each alone in a program, so that its kernel can be tried."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from ..compiler.check.compare import SLACK, relative_error
from ..compiler.check.samples import Samples
from ..compiler.ir.program import Function, Program, Weight, emit, emit_weight, is_weight, type_of
from ..compiler.ir.types import DTYPE_NAMES, PagedType, TensorType, TupleType
from ..compiler.ops import OPS
from ..runtime.artifact.errors import XllmcError
from ..runtime.artifact.recipe import Recipe

OWN = "xllmc."


def brought_calls(program: Program, language: str) -> Iterator[tuple[fx.Node, Program]]:
    """Each different call whose kernel of ``language`` is not xllmc's own, and a program of it alone.

    Calls that read or change a cache are left out.
    """
    seen: set[str] = set()
    for function in program.functions.values():
        for node in function.calls:
            kernel = node.target.kernels.get(language)
            if kernel is None or kernel.__module__.startswith(OWN) or touches_states(node):
                continue
            key = str([type_of(a) for a in node.args]) + str(sorted(node.kwargs.items(), key=str)) + node.target.name
            if key not in seen:
                seen.add(key)
                yield node, program_of(program, node)


def touches_states(node: fx.Node) -> bool:
    return any(isinstance(type_of(v), PagedType) for v in (*node.args, node))


def program_of(program: Program, node: fx.Node) -> Program:
    """A program of this call alone, whose operands are inputs, or weights stored as they are stored."""
    function = Function("forward", fx.Graph(), ())
    alone = Program(program.facts, {"forward": function}, {}, {}, program.groups, program.stage)
    computed = list(dict.fromkeys(a for a in node.args if isinstance(a, fx.Node) and not is_weight(a)))
    operands: dict[Any, fx.Node] = {}
    for number, value in enumerate(computed):
        operands[value] = function.graph.placeholder(f"input_{number}")
        operands[value].target = f"input_{number}"
        operands[value].meta.update(type=type_of(value), where="")
    for value in dict.fromkeys(a for a in node.args if is_weight(a)):
        kept, name = program.weights[value.target], f"weight_{len(alone.weights)}"
        source = Recipe.source(name, kept.type.sizes, kept.type.dtype)
        alone.weights[name] = Weight(kept.type, source, kept.layout)
        operands[value] = emit_weight(function.graph, alone, name)
    arguments = [operands[a] if isinstance(a, fx.Node) else a for a in node.args]
    call = emit(function.graph, node.target, *arguments, **node.kwargs)
    several = isinstance(type_of(call), TupleType)
    count = len(type_of(call).items) if several else 1
    results = [emit(function.graph, OPS["get"], call, index=i) for i in range(count)] if several else [call]
    function.graph.output(tuple(results))
    function.results = tuple(f"result_{i}" for i in range(count))
    return alone


def check_reference(node: fx.Node, value: Any, samples: Samples) -> None:
    """XllmcError where a reference gives another type than the op's rule says."""
    kind: TensorType = type_of(node)
    if value.dtype != kind.torch_dtype or tuple(value.shape) != samples.shape_of(kind):
        got = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        raise XllmcError(f"the reference of op {node.target.name} gives {got}, where its type rule says {kind}")


def compare(what: str, node: fx.Node, expected: torch.Tensor, found: torch.Tensor) -> None:
    """XllmcError where a kernel's result is further from the reference's than its op's tolerance allows."""
    kind = DTYPE_NAMES[expected.dtype]
    allowed = SLACK * node.target.tolerance.get(kind, 0.0)
    error = relative_error(expected, found)
    if not error <= allowed:
        raise XllmcError(
            f"{what} does not compute what the op's reference does: relative error {error:.3g}, allowed {allowed:.3g}"
        )
