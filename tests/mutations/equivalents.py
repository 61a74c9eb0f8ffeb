"""Mutants that no comparison can tell from the pass itself, by rule, with the reason."""

import torch
from torch import fx
from xllmc.compiler.check.compare import in_float32, inputs_of, samples_of, values_of
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.region import Region
from xllmc.compiler.ir.widen import widened

from tests.mutations.mutating import Placed

NO_NOISIER = 1.25
"""Root mean square of rounding errors, of the new side over those of the old, beyond which more was lost than before:
one rounding more than one is 1.41, and the ratio is known within a few percent."""


def equivalent(placed: Placed, program: Program, regions: list[Region]) -> str:
    """Why the edit, which made ``regions``, changes nothing that counts; empty where it does."""
    if placed.unread:
        return "nothing but what is replaced with it reads the value"
    if placed.edit.operator == "lost cast" and all(noise(r, program) <= NO_NOISIER for r in regions):
        return "what stood there rounds as coarsely"
    return ""


def noise(region: Region, program: Program) -> float:
    """Rounding errors of the new side against float32, over those of the old; the largest of its results."""
    errors: dict[tuple[int, bool], float] = {}
    for samples in samples_of(region):
        narrow = inputs_of(region, samples, program.constants)
        for new, graph in enumerate((region.old, region.new)):
            for number, error in enumerate(_errors(graph, narrow)):
                errors[number, bool(new)] = errors.get((number, bool(new)), 0.0) + error
    ratios = [
        (error / max(errors[number, False], 1e-30)) ** 0.5 for (number, new), error in errors.items() if new and error
    ]
    return max(ratios, default=0.0)


def _errors(graph: fx.Graph, inputs: list) -> list[float]:
    """Sums of squares of the rounding errors of each result, relative to the largest magnitude in its row."""
    rounded, exact = values_of(graph, inputs), values_of(widened(graph), in_float32(inputs))
    sums = []
    for a, b in zip(rounded, exact, strict=True):
        scale = torch.where(b.isfinite(), b.double().abs(), 0).amax(-1, keepdim=True).clamp_min(1e-30)
        error = (a.double() - b.double()) / scale
        sums.append(float(error[error.isfinite()].square().sum()))
    return sums
