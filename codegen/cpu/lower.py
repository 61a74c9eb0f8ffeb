"""From a program in the lowered stage to kernels and the plan that launches them."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from ...compiler.ir.program import Function, Program, type_of
from ...compiler.ir.types import TensorType
from ...compiler.memory import MemoryPlan, Value, plan_memory, source_of
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.schema import FunctionPlan, InputEntry, Launch, Plan
from .kernel import KernelCall
from .providers import PROVIDERS

HEADERS = ("attention.h", "embedding.h", "gemm.h", "heads.h", "norm.h", "qkv.h", "rope.h", "sampler.h")


@dataclass
class Kernel:
    name: str
    text: str
    origin: str
    uses: int = 0


@dataclass(frozen=True)
class Lowered:
    plan: Plan
    source: str
    """C++ of every kernel."""
    memory: MemoryPlan


def lower(program: Program, version: str) -> Lowered:
    """Every call becomes a launch; equal kernels are written once. XllmcError names an op that no kernel claims."""
    try:
        memory = plan_memory(program)
    except ValueError as error:
        raise XllmcError(f"cannot plan the memory of {program.facts.family}: {error}") from error
    kernels: dict[str, Kernel] = {}
    functions = tuple(_function(program, f, kernels) for f in program.functions.values())
    buffers = tuple(memory.buffers[name] for name in sorted(memory.buffers))
    plan = Plan(arenas=memory.arenas, buffers=buffers, functions=functions)
    return Lowered(plan, _source(program, list(kernels.values()), version), memory)


def _function(program: Program, function: Function, kernels: dict[str, Kernel]) -> FunctionPlan:
    launches = []
    given = _results_of_forward(program) if function is not program.forward else {}
    for node in function.calls:
        if node.target.traits.view:
            continue
        provider = PROVIDERS.get(node.target.name)
        if provider is None:
            raise XllmcError(
                f"no CPU kernel computes op {node.target.name} ({node.meta.get('where') or node.name}); "
                "register one in codegen/cpu/providers.py, or a pass that rewrites the op"
            )
        call = KernelCall(program, function.name, node, given)
        try:
            provider(call, program)
        except ValueError as error:
            raise XllmcError(
                f"cannot lower {node.name} ({node.meta.get('where', '')}) to a CPU kernel: {error}"
            ) from error
        kernel = kernels.setdefault(
            call.text, Kernel(_name(call, kernels), call.text, node.meta.get("where") or node.name)
        )
        kernel.uses += 1
        launches.append(Launch(kernel=kernel.name, operands=tuple(call.operands), origin=_origin(node)))
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


def _results_of_forward(program: Program) -> dict[str, str]:
    """Result name to buffer name: what the functions after forward may read."""
    forward = program.forward
    return {name: _buffer(forward, node) for name, node in zip(forward.results, forward.outputs, strict=True)}


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


def _origin(node: Any) -> str:
    where = node.meta.get("where")
    return f"{where}:{node.name}" if where else node.name


def _buffer(function: Function, node: Any) -> str:
    source = source_of(node)
    if not isinstance(source, Value):
        raise XllmcError(f"function {function.name} returns its input {node.name} unchanged, which no plan can")
    return f"{function.name}:{source.name}"


def _name(call: KernelCall, kernels: dict[str, Kernel]) -> str:
    words = [call.template, *(p.lower() for p in call.parameters if p not in ("false", "Identity"))]
    name = "xk_" + "_".join("gated" if w == "true" else w for w in words)
    if call.definition:
        name += "_" + hashlib.sha256(call.definition.encode()).hexdigest()[:8]
    taken = {k.name for k in kernels.values()}
    number = 2
    base = name
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def _source(program: Program, kernels: list[Kernel], version: str) -> str:
    template = resources.files(__package__).joinpath("templates/kernels.cpp.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.undefined = jinja2.StrictUndefined
    return environment.from_string(template).render(
        version=version,
        family=program.facts.family,
        dtype=program.facts.dtype,
        headers=HEADERS,
        kernels=sorted(kernels, key=lambda k: k.name),
    )
