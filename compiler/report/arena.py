"""The arenas over time: which launches a buffer lives through, read from the plan alone."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ...runtime.artifact.dtypes import ITEM_BYTES
from ...runtime.artifact.schema import FunctionPlan, Manifest, Plan, Pointer
from .kernels import layers_joined, op_of_value


@dataclass(frozen=True)
class Lifetime:
    """A buffer, in bytes per unit of its arena's symbol, from the first to the last launch that holds it."""

    name: str
    op: str
    arena: str
    offset: int
    bytes: int
    first: int
    last: int
    result: bool
    """Returned: untouched from the start to the end, and while later functions run."""


@dataclass(frozen=True)
class Timeline:
    function: str
    launches: tuple[tuple[str, str], ...]
    """Kernel, and the module and value it was launched for."""
    buffers: tuple[Lifetime, ...]


@dataclass(frozen=True)
class StoredTensors:
    """Tensors that differ only by their layer."""

    name: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Memory:
    arenas: dict[str, int]
    """Symbol, or ``fixed``, to bytes per unit."""
    timelines: tuple[Timeline, ...]
    weights: tuple[StoredTensors, ...]
    """Largest first."""
    state_bytes: dict[str, float]
    """Key-value memory: state group to bytes of one token, all its layers."""


def memory(manifest: Manifest, plan: Plan) -> Memory:
    groups = {
        f"group {g.index}": sum(s.page_bytes for s in manifest.states if s.group == g.index) / g.page_tokens
        for g in manifest.groups
    }
    timelines = tuple(timeline(f, plan) for f in plan.functions)
    return Memory(dict(plan.arenas), timelines, tuple(stored(manifest)), groups)


def timeline(function: FunctionPlan, plan: Plan) -> Timeline:
    buffers = {b.name: b for b in plan.buffers}
    held: dict[str, list[int]] = {}
    for index, launch in enumerate(function.launches):
        for operand in launch.operands:
            if isinstance(operand, Pointer) and operand.kind == "buffer":
                held.setdefault(operand.name, []).append(index)
    results = set(function.outputs.values())
    lifetimes = []
    for name, indices in held.items():
        entry, owner = buffers[name], name.partition(":")[0]
        result = name in results or owner != function.name
        first, last = (0, len(function.launches) - 1) if result else (indices[0], indices[-1])
        value = name.partition(":")[2]
        lifetimes.append(
            Lifetime(name, op_of_value(value), entry.scale or "fixed", entry.offset, entry.bytes, first, last, result)
        )
    return Timeline(function.name, tuple((x.kernel, x.origin) for x in function.launches), tuple(lifetimes))


def stored(manifest: Manifest) -> Iterable[StoredTensors]:
    totals: dict[str, tuple[int, int]] = {}
    for weight in manifest.weights:
        name = layers_joined(weight.name)
        count, size = totals.get(name, (0, 0))
        totals[name] = count + 1, size + math.prod(weight.shape) * ITEM_BYTES[weight.dtype]
    return sorted((StoredTensors(n, c, b) for n, (c, b) in totals.items()), key=lambda s: -s.bytes)
