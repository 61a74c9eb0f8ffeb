"""What a program comes to on sample inputs, before and after a pass."""

from typing import Any

import torch
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.check.samples import Samples
from xllmc.compiler.ir.interpret import run_function
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.types import PagedType
from xllmc.compiler.ops.attention import PagedCache

WIDE, NARROW = 1e-4, 2**-5
"""Relative errors that summing in another order, and rounding elsewhere, may bring to float32 and to bfloat16."""


def values(program: Program, samples: Samples) -> dict[str, torch.Tensor]:
    """The forward function's results by name, and what it left in its states."""
    inputs = {str(n.target): _input(samples, str(n.target), n.meta["type"]) for n in program.forward.inputs}
    results = run_function(
        program.forward, inputs, lambda name: samples.weight(program.weights[name], program.constants)
    )
    found: dict[str, torch.Tensor] = {}
    for name, value in {**results, **inputs}.items():
        if isinstance(value, PagedCache):
            found |= {f"{name}.keys": value.keys, f"{name}.values": value.values}
        elif name in results:
            found[name] = value
    return found


def difference(before: Program, after: Program, samples: Samples) -> float:
    """The largest relative error of any value of ``after``, in units of what its dtypes allow."""
    wanted, got = values(before, samples), values(after, samples)
    assert wanted.keys() == got.keys()
    types = [getattr(n.meta.get("type"), "dtype", "") for p in (before, after) for n in p.forward.graph.nodes]
    allowed = NARROW if "bf16" in types else WIDE
    return max(relative_error(wanted[name], got[name]) for name in wanted) / allowed


def _input(samples: Samples, name: str, kind: Any) -> Any:
    if isinstance(kind, PagedType):
        return samples.state(name, kind)
    known = samples.step_input(name, kind)
    return samples.value(name, kind) if known is None else known
