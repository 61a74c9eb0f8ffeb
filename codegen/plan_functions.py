"""What plans of all targets say alike of a program's functions: their inputs, and where their results lie."""

from typing import Any

from torch import fx

from ..compiler.ir.program import Function, Program, type_of
from ..compiler.ir.types import TensorType
from ..compiler.memory import Value, source_of
from ..runtime.artifact.errors import XllmcError
from ..runtime.artifact.schema import FunctionPlan, InputEntry, Launch


def function_plan(function: Function, given: dict[str, str], launches: list[Launch]) -> FunctionPlan:
    """The function's part of a plan. ``given``: its inputs that are buffers of another function."""
    return FunctionPlan(
        name=function.name,
        inputs=tuple(
            InputEntry(name=str(n.target), dtype=type_of(n).dtype, shape=tuple(map(_size, type_of(n).shape)))
            for n in function.inputs
            if isinstance(type_of(n), TensorType) and n.target not in given
        ),
        outputs={name: _buffer(function, node) for name, node in zip(function.results, function.outputs, strict=True)},
        launches=tuple(launches),
    )


def given_to(program: Program, function: Function) -> dict[str, str]:
    """What a function may read of forward's results: result name to buffer name."""
    forward = program.forward
    if function is forward:
        return {}
    return {name: _buffer(forward, node) for name, node in zip(forward.results, forward.outputs, strict=True)}


def origin_of(node: fx.Node, part: str = "") -> str:
    """How a launch names its node, and which of its several launches it is."""
    where = node.meta.get("where")
    return (f"{where}:{node.name}" if where else node.name) + (f"/{part}" if part else "")


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


def _buffer(function: Function, node: fx.Node) -> str:
    source = source_of(node)
    if not isinstance(source, Value):
        raise XllmcError(f"function {function.name} returns its input {node.name} unchanged, which no plan can")
    return f"{function.name}:{source.name}"
