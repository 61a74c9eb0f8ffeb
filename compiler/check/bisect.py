"""Find the pass, and then the site, that first changes what a program computes.

For faults that a pass's own checks did not see, or that ran with them off. Programs are run whole, with the ops'
references on one sample step and in float32, where only a change of meaning is large.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from typing import Any

import torch

from ...passes.api import Pass
from ...runtime.artifact.recipe import Recipe
from ..ir.interpret import run_function
from ..ir.program import Program
from ..ir.text import print_function
from ..ir.types import PagedType, TensorType
from ..ir.verify import VerificationError, verify
from ..ir.widen import widened, widened_type
from ..pipeline.run import PassError, RunOptions, run_pass
from .compare import relative_error
from .samples import Samples

TOLERANCE = 1e-3
"""Relative difference of results in float32 beyond which they are different; reordered sums stay far below."""

UNCHECKED = RunOptions(verification="off")


@dataclass(frozen=True)
class Found:
    """The first change of results."""

    pass_name: str
    position: int
    """Of the pass among those that ran, from 0: one pass may run several times."""
    site: int | None
    """Number of the site, from 1, among those the pass matched; None where it failed as a whole."""
    where: str
    """The site's module path."""
    error: float
    """Relative; inf where the program cannot be run."""
    reason: str
    diff: str
    """What this site changed, as a unified diff of the forward function."""


class Runner:
    """Runs programs of one model on the same inputs and weights; tokens stand at the edge of its longest window."""

    def __init__(self, program: Program) -> None:
        self._samples = Samples(0, window=max((g.window or 0 for g in program.groups), default=0))
        self._weights: dict[Recipe, torch.Tensor] = {}

    def results(self, program: Program) -> list[torch.Tensor]:
        """Results of the forward function in float32, then the states that it changed."""
        function = replace(program.forward, graph=widened(program.forward.graph))
        samples = self._samples
        inputs: dict[str, Any] = {}
        for node in function.inputs:
            name, kind = str(node.target), widened_type(node.meta["type"])
            if isinstance(kind, PagedType):
                inputs[name] = samples.state(name, kind)
            elif isinstance(kind, TensorType):
                known = samples.step_input(name, kind)
                inputs[name] = samples.value(name, kind) if known is None else known
        values = run_function(function, inputs, lambda name: self._weight(program, name))
        caches = [i for i in inputs.values() if not isinstance(i, torch.Tensor)]
        return [*values.values(), *(part for cache in caches for part in (cache.keys, cache.values))]

    def _weight(self, program: Program, name: str) -> torch.Tensor:
        weight = program.weights[name]
        if weight.recipe not in self._weights:
            self._weights[weight.recipe] = self._samples.weight(weight, program.constants).float()
        return self._weights[weight.recipe]


def bisect(
    program: Program,
    passes: Sequence[Pass],
    tolerance: float = TOLERANCE,
    say: Callable[[str], None] = lambda what: None,
) -> Found | None:
    """The first pass and site after which results differ from the given program's by more than ``tolerance``.

    None where they never do. A lossy pass may bring what it declares on top.
    """
    runner = Runner(program)
    reference = runner.results(program)
    stages: list[Program] = [program]
    failed: Found | None = None
    allowed = [tolerance]
    for position, one in enumerate(passes):
        say(f"running {one.name}")
        try:
            after, _ = run_pass(stages[-1], one, UNCHECKED)
        except PassError as error:
            failed = Found(one.name, position, None, "", float("inf"), str(error), "")
            break
        stages.append(after)
        allowed.append(allowed[-1] + one.tolerance)

    def fault(number: int) -> tuple[float, str]:
        say(f"comparing after {passes[number - 1].name}")
        return _fault(runner, reference, stages[number], allowed[number])

    good, bad = 0, len(stages) - 1
    if not bad or not fault(bad)[1]:
        return failed  # what a pass fails on may be an earlier one's doing; here it was not
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if fault(middle)[1] else (middle, bad)
    return _first_site(runner, reference, stages[bad - 1], passes[bad - 1], bad - 1, allowed[bad], say)


def _first_site(
    runner: Runner,
    reference: list[torch.Tensor],
    before: Program,
    one: Pass,
    position: int,
    tolerance: float,
    say: Callable[[str], None],
) -> Found:
    whole, report = run_pass(before, one, UNCHECKED)
    sites = [s for s in report.sites if s.matched]
    good, bad = 0, len(sites)
    while bad - good > 1:
        middle = (good + bad) // 2
        say(f"{one.name}: {middle} of {len(sites)} sites")
        some, _ = run_pass(before, one, UNCHECKED, limit=middle)
        good, bad = (good, middle) if _fault(runner, reference, some, tolerance)[1] else (middle, bad)
    less, _ = run_pass(before, one, UNCHECKED, limit=good)
    more = run_pass(before, one, UNCHECKED, limit=bad)[0] if bad < len(sites) else whole
    error, reason = _fault(runner, reference, more, tolerance)
    old, new = (print_function(p.forward).splitlines() for p in (less, more))
    where = sites[bad - 1].where if sites else ""
    return Found(
        one.name,
        position,
        bad or None,
        where,
        error,
        reason,
        "\n".join(unified_diff(old, new, "before", "after", lineterm="", n=1)),
    )


def _fault(runner: Runner, reference: list[torch.Tensor], program: Program, tolerance: float) -> tuple[float, str]:
    """How far the program's results are off, and why that is a fault; an empty reason where it is none."""
    try:
        verify(program)
        results = runner.results(program)
    except (VerificationError, RuntimeError, TypeError, ValueError, LookupError) as problem:
        return float("inf"), f"the program cannot be run: {problem}"
    error = max(relative_error(a, b) for a, b in zip(reference, results, strict=True))
    return error, "" if error <= tolerance else f"results differ by {error:.3g}, more than {tolerance:.3g}"
