"""How long a launch, or a step, takes by a machine's profile: no measuring, no torch.

    seconds = overhead + (streaming^P + (handling + arithmetic)^P)^(1/P) / busy

``streaming``: weights and states over the bandwidth of the whole step's working set. ``handling``: every byte over the
bandwidth of a core's own cache. ``arithmetic``: operations over the ceiling. Each is divided by the share that kernels
of this kind were seen to reach. ``busy``: the share of the threads that have something to do.
"""

from bisect import bisect
from collections.abc import Iterable
from math import ceil, log
from typing import Any, NamedTuple

from .artifact.counts import Sizes, evaluate
from .artifact.schema import FunctionPlan, Plan, Work
from .machine import Ceilings, Profile, Rates

DECODE: Sizes = {"T": 1, "S": 1, "R": 1, "B": 16, "C": 512}
PREFILL: Sizes = {"T": 512, "S": 1, "R": 1, "B": 16, "C": 256}

OVERLAP = 3
"""The exponent P: memory and arithmetic overlap, but not wholly. 1 would be none, infinity all."""


MATRIX_OPS = ("linear", "paged_attention")
"""Ops whose arithmetic is in their operands' dtype; all others compute in float32."""


def bandwidth(ceilings: Ceilings, working_set: float) -> float:
    """Bytes per second, between the measured working sets on a logarithmic scale."""
    points = ceilings.bandwidth
    above = bisect([p.bytes for p in points], working_set)
    if above in (0, len(points)):
        return points[min(above, len(points) - 1)].per_second
    low, high = points[above - 1], points[above]
    share = log(working_set / low.bytes) / log(high.bytes / low.bytes)
    return float(low.per_second * (high.per_second / low.per_second) ** share)


class Parts(NamedTuple):
    """What a launch comes to at the ceilings, before any calibration: seconds."""

    streaming: float
    handling: float
    arithmetic: float
    idle: float
    """One over the share of threads with something to do."""


def parts(work: Work, ceilings: Ceilings, sizes: Sizes, footprint: float, threads: int | None = None) -> Parts:
    """``footprint``: bytes that a whole step touches. ``threads``: default as many as were measured."""
    threads = threads or ceilings.threads
    streamed, read, write, flops, tasks = (
        evaluate(c, sizes) for c in (work.streamed, work.read, work.write, work.flops, work.tasks)
    )
    idle = threads * ceil(tasks / threads) / tasks if tasks > 0 else 1.0
    rate = ceilings.arithmetic.get(work.dtype, ceilings.arithmetic["f32"]) if work.op in MATRIX_OPS else 0.0
    return Parts(
        streamed / bandwidth(ceilings, footprint),
        (streamed + read + write) / ceilings.bandwidth[0].per_second,
        flops / (rate or ceilings.arithmetic["f32"]),
        idle * ceilings.threads / threads,
    )


def launch_seconds(
    work: Work, profile: Profile, sizes: Sizes, footprint: float = float("inf"), threads: int | None = None
) -> float:
    """Seconds of one launch in a step of these sizes that touches ``footprint`` bytes (default: more than any cache
    holds).
    """
    return rated_seconds(parts(work, profile.ceilings, sizes, footprint, threads), profile.rates(work.op, work.dtype))


def rated_seconds(at_ceilings: Parts, rates: Rates) -> float:
    """Seconds of a launch of a kind that gets as far as ``rates``."""
    core = at_ceilings.handling / rates.handling + at_ceilings.arithmetic / rates.arithmetic
    return float(combined(rates.overhead, at_ceilings.streaming / rates.streaming, core, at_ceilings.idle))


def combined(overhead: Any, streaming: Any, core: Any, idle: Any) -> Any:
    """The formula above, of numbers or of arrays of them; fitting uses it too."""
    return overhead + (streaming**OVERLAP + core**OVERLAP) ** (1 / OVERLAP) * idle


def footprint_of(works: Iterable[tuple[Work, int]], sizes: Sizes) -> float:
    """Bytes that a step touches: all weights and states, and the values of its widest launch.

    ``works``: what launches do, and how many do each.
    """
    streamed, widest = 0.0, 0.0
    for work, count in works:
        streamed += count * evaluate(work.streamed, sizes)
        widest = max(widest, evaluate(work.read, sizes) + evaluate(work.write, sizes))
    return streamed + widest


class StepCost:
    """Predicts steps of one engine: made once, as ``seconds`` looks at every different launch."""

    def __init__(self, plan: Plan, profile: Profile, functions: tuple[str, ...] = ("forward", "sample")) -> None:
        """``functions``: of the plan, those that a step runs. A launch whose op states no cost counts as a bare one."""
        self.profile = profile
        self._works = [_grouped(f) for f in plan.functions if f.name in functions]
        self._bare = sum(launch.work is None for f in plan.functions if f.name in functions for launch in f.launches)

    def seconds(self, sizes: Sizes, threads: int | None = None) -> float:
        """Seconds of a step of these sizes, from the engine's door and back."""
        total = self.profile.ceilings.step + self._bare * self.profile.ceilings.launch
        for works in self._works:
            footprint = footprint_of(works, sizes)
            total += sum(count * launch_seconds(w, self.profile, sizes, footprint, threads) for w, count in works)
        return total


def _grouped(function: FunctionPlan) -> list[tuple[Work, int]]:
    """Different works, and how many launches do each."""
    found: dict[str, tuple[Work, int]] = {}
    for work in (launch.work for launch in function.launches):
        if work is not None:
            key = work.model_dump_json()
            found[key] = (work, found.get(key, (work, 0))[1] + 1)
    return list(found.values())
