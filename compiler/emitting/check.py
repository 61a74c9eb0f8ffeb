"""Running what was emitted beside the ops' references."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch

from ...runtime.artifact.errors import XllmcError
from ..check.compare import relative_error
from ..ir.interpret import run_function
from ..ir.program import Function, Program
from ..ir.types import TensorType
from ..ir.widen import NARROW, widened
from ..ops.attention import PagedCache
from .emitter import ReadWeight, Runner
from .steps import SampleStep

ALLOWED = 1e-3
"""Relative to the largest magnitude of a row, in float32. Sums in another order came to 1e-6 over six layers, and other
tanh functions to 2e-5 over three.
"""


@dataclass(frozen=True)
class Checked:
    step: str
    error: float
    """The largest, over results and states, relative to the largest magnitude of its row."""


def in_float32(program: Program) -> Program:
    """The same forward function with float32 for every narrower float, in weights and states too."""
    forward = program.forward
    wide = Function(forward.name, widened(forward.graph), forward.results)
    weights = {name: replace(w, type=wide_tensor(w.type)) for name, w in program.weights.items()}
    facts = program.facts.model_copy(update={"dtype": "f32"})
    return replace(program, functions={"forward": wide}, weights=weights, facts=facts)


def wide_tensor(kind: TensorType) -> TensorType:
    return kind.with_dtype("f32") if kind.dtype in NARROW else kind


def check_runs(
    program: Program, read: ReadWeight, run: Runner, steps: Iterable[SampleStep], what: str
) -> tuple[Checked, ...]:
    """Errors of ``run`` against the references, by step; XllmcError where one is too large. ``program`` is float32."""
    weight = cache(read)
    checked = []
    for step in steps:
        results = run(step.inputs | state_tensors(step.states))
        states = copy.deepcopy(step.states)
        expected = run_function(program.forward, {**step.inputs, **states}, weight)
        expected |= {f"next.{name}": value for name, value in state_tensors(states).items()}
        error = max(relative_error(value, results[name]) for name, value in expected.items())
        if not error <= ALLOWED:
            raise XllmcError(
                f"{what} computes something else than the program it was made of: relative error {error:.3g} in the "
                f"step {step.name!r}, allowed {ALLOWED:g}; nothing was written; this is a fault of xllmc or of {what}"
            )
        checked.append(Checked(step.name, error))
    return tuple(checked)


def state_tensors(states: Mapping[str, PagedCache]) -> dict[str, torch.Tensor]:
    parts = [(name, part, getattr(state, part)) for name, state in states.items() for part in ("keys", "values")]
    return {f"{name}.{part}": value for name, part, value in parts}
