"""From a program in the lowered stage to kernels and the plan that launches them."""

import hashlib
from dataclasses import dataclass
from importlib import resources

import jinja2

from ...compiler.cost import node_work
from ...compiler.ir.program import Function, Program
from ...compiler.memory import MemoryPlan, plan_memory
from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.schema import FunctionPlan, Launch, Plan
from ..plan_functions import function_plan, given_to, origin_of
from .kernel import KernelCall
from .providers import HEADERS


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
    headers: dict[str, str]
    """Headers that kernels brought besides xllmc's own, by path."""
    memory: MemoryPlan


def lower(program: Program, version: str) -> Lowered:
    """Every call becomes a launch; equal kernels are written once. XllmcError names an op that no kernel claims."""
    try:
        memory = plan_memory(program)
    except ValueError as error:
        raise XllmcError(f"cannot plan the memory of {program.facts.family}: {error}") from error
    kernels: dict[str, Kernel] = {}
    headers: dict[str, str] = {}
    functions = tuple(_function(program, f, kernels, headers) for f in program.functions.values())
    buffers = tuple(memory.buffers[name] for name in sorted(memory.buffers))
    plan = Plan(arenas=memory.arenas, buffers=buffers, functions=functions)
    source = _source(program, list(kernels.values()), sorted(headers), version)
    return Lowered(plan, source, headers, memory)


def _function(
    program: Program, function: Function, kernels: dict[str, Kernel], headers: dict[str, str]
) -> FunctionPlan:
    launches = []
    given = given_to(program, function)
    for node in function.calls:
        if node.target.traits.view:
            continue
        provider = node.target.kernels.get("cpu")
        if provider is None:
            raise XllmcError(
                f"no CPU kernel computes op {node.target.name} ({node.meta.get('where') or node.name}); "
                f'register one with @{node.target.name}.kernel("cpu"), or a pass that rewrites the op'
            )
        call = KernelCall(program, function.name, node, given)
        try:
            provider(call)
        except Exception as error:  # kernels may be a plugin's
            raise XllmcError(
                f"cannot lower {node.name} ({node.meta.get('where', '')}) to a CPU kernel of op {node.target.name}: "
                f"{error if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'}"
            ) from error
        if not call.template and not call.definition:
            raise XllmcError(
                f"the CPU kernel of op {node.target.name} says nothing; it must call instantiate or define"
            )
        kernel = kernels.setdefault(
            call.text, Kernel(_name(call, kernels), call.text, node.meta.get("where") or node.name)
        )
        kernel.uses += 1
        for path, text in call.headers.items():
            if headers.setdefault(path, text) != text:
                raise XllmcError(f"two kernels bring different headers {path}; name one of them otherwise")
        work = node_work(node, program)
        launches.append(Launch(kernel=kernel.name, operands=tuple(call.operands), origin=origin_of(node), work=work))
    return function_plan(function, given, launches)


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


def _source(program: Program, kernels: list[Kernel], brought: list[str], version: str) -> str:
    template = resources.files(__package__).joinpath("templates/kernels.cpp.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.undefined = jinja2.StrictUndefined
    return environment.from_string(template).render(
        version=version,
        family=program.facts.family,
        dtype=program.facts.dtype,
        headers=[*(f"xllmc/{name}" for name in HEADERS), *brought],
        kernels=sorted(kernels, key=lambda k: k.name),
    )
