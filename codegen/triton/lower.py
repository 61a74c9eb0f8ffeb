"""From a program in the lowered stage to device kernels and the plan that launches them."""

from dataclasses import dataclass
from typing import Any

from torch import fx

from ...compiler.cost import node_work
from ...compiler.ir.program import Function, Program, type_of
from ...compiler.ir.types import TensorType
from ...compiler.memory import MemoryPlan, Scratch, Value, plan_memory, source_of
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.schema import FunctionPlan, InputEntry, Launch, Plan
from . import providers as providers  # which registers the kernels of xllmc's own ops
from .architecture import Architecture
from .kernel import KernelSource, TritonCall


@dataclass(frozen=True)
class Lowered:
    plan: Plan
    """Without ``device_kernels``: their sizes are known when they have been compiled."""
    sources: tuple[KernelSource, ...]
    memory: MemoryPlan


def lower(program: Program, machine: Architecture, invariant: bool = False) -> Lowered:
    """Every call becomes launches; equal kernels are written once. XllmcError names an op that no kernel claims.

    ``invariant``: no kernel may be chosen by how much else is in a step.
    """
    sources: dict[str, KernelSource] = {}
    scratches: list[Scratch] = []
    functions = tuple(
        _function(program, function, machine, invariant, sources, scratches) for function in program.functions.values()
    )
    try:
        memory = plan_memory(program, scratches)
    except ValueError as error:
        raise XllmcError(f"cannot plan the memory of {program.facts.family}: {error}") from error
    buffers = tuple(memory.buffers[name] for name in sorted(memory.buffers))
    return Lowered(Plan(arenas=memory.arenas, buffers=buffers, functions=functions), tuple(sources.values()), memory)


def _function(
    program: Program,
    function: Function,
    machine: Architecture,
    invariant: bool,
    sources: dict[str, KernelSource],
    scratches: list[Scratch],
) -> FunctionPlan:
    given = _results_of_forward(program) if function is not program.forward else {}
    launches: list[Launch] = []
    for node in function.calls:
        if node.target.traits.view:
            continue
        call = TritonCall(program, function.name, node, machine, invariant, given)
        _provide(call)
        scratches += call.scratches
        for index, pending in enumerate(call.launches):
            sources.setdefault(pending.kernel.name, pending.kernel)
            launches.append(
                Launch(
                    kernel=pending.kernel.name,
                    operands=pending.pointers,
                    origin=_origin(node, pending.part),
                    work=node_work(node, program) if index == 0 else None,
                    grid=pending.grid,
                    when=pending.when,
                )
            )
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


def _provide(call: TritonCall) -> None:
    """Let the op's provider say what computes it."""
    node = call.node
    provider = node.target.kernels.get("triton")
    where = node.meta.get("where") or node.name
    if provider is None:
        raise XllmcError(
            f"no Triton kernel computes op {node.target.name} ({where}); "
            f'register one with @{node.target.name}.kernel("triton"), or a pass that rewrites the op'
        )
    try:
        provider(call)
    except Exception as error:  # kernels may be a plugin's
        raise XllmcError(
            f"cannot lower {node.name} ({where}) to Triton kernels of op {node.target.name}: "
            f"{error if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'}"
        ) from error
    if not call.launches:
        raise XllmcError(f"the Triton provider of op {node.target.name} says nothing; it must call launch")


def _results_of_forward(program: Program) -> dict[str, str]:
    """Result name to buffer name: what the functions after forward may read."""
    forward = program.forward
    return {name: _buffer(forward, node) for name, node in zip(forward.results, forward.outputs, strict=True)}


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


def _origin(node: fx.Node, part: str) -> str:
    where = node.meta.get("where")
    return (f"{where}:{node.name}" if where else node.name) + (f"/{part}" if part else "")


def _buffer(function: Function, node: fx.Node) -> str:
    source = source_of(node)
    if not isinstance(source, Value):
        raise XllmcError(f"function {function.name} returns its input {node.name} unchanged, which no plan can")
    return f"{function.name}:{source.name}"
