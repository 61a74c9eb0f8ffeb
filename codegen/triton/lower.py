"""From a program in the lowered stage to device kernels and the plan that launches them."""

from dataclasses import dataclass

from ...compiler.cost import node_work
from ...compiler.ir.program import Function, Program
from ...compiler.memory import MemoryPlan, Scratch, plan_memory
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.schema import FunctionPlan, Launch, Plan
from ..plan_functions import function_plan, given_to, origin_of
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
    given = given_to(program, function)
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
                    origin=origin_of(node, pending.part),
                    work=node_work(node, program) if index == 0 else None,
                    grid=pending.grid,
                    when=pending.when,
                )
            )
    return function_plan(function, given, launches)


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
