"""How long a launch, or a step, takes by a machine's profile: no measuring, no torch.

    seconds = overhead + (streaming^P + (handling + arithmetic)^P)^(1/P) / busy

``streaming``: weights and states over the bandwidth of the whole step's working set. ``handling``: every byte over the
bandwidth of a core's own cache. ``arithmetic``: operations over the ceiling. Each is divided by the share that kernels
of this kind were seen to reach. ``busy``: the share of the threads that have something to do.
"""

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Any, NamedTuple

import numpy as np

from .artifact.counts import Sizes, evaluate, monomial, symbols
from .artifact.schema import FunctionPlan, Plan, Work
from .machine import Ceilings, Profile, Rates

DECODE: Sizes = {"T": 1, "S": 1, "R": 1, "B": 16, "C": 512}
PREFILL: Sizes = {"T": 512, "S": 1, "R": 1, "B": 16, "C": 256}

SizesOfMany = Mapping[str, float] | Mapping[str, float | np.ndarray]
"""Sizes of n steps: what is not the same in all is an array of n."""

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


def arithmetic(work: Work, ceilings: Ceilings) -> float:
    """Operations per second at most."""
    return ceilings.arithmetic.get(work.dtype if work.op in MATRIX_OPS else "f32", ceilings.arithmetic["f32"])


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
    return Parts(
        streamed / bandwidth(ceilings, footprint),
        (streamed + read + write) / ceilings.bandwidth[0].per_second,
        flops / arithmetic(work, ceilings),
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
    """Predicts steps of one engine: the sum of ``launch_seconds`` over its launches, to rounding.

    Made once for an engine. All launches' polynomials are one matrix, so that many steps are predicted at a time.
    """

    def __init__(self, plan: Plan, profile: Profile, functions: tuple[str, ...] = ("forward", "sample")) -> None:
        """``functions``: of the plan, those that a step runs. A launch whose op states no cost counts as a bare one."""
        run = [f for f in plan.functions if f.name in functions]
        # Of launches for one number of tokens or another, the first stands for all.
        bare = sum(launch.work is None and not launch.when for f in run for launch in f.launches)
        self._fixed = profile.ceilings.step + bare * profile.ceilings.launch
        grouped = [works for works in map(_grouped, run) if works]
        self._works = _Works.of(grouped, profile) if grouped else None
        self._ceilings = profile.ceilings
        self.monomials: tuple[str, ...] = self._works.monomials if self._works else ()
        """Of all launches' polynomials: what the sizes of a step must tell."""

    def seconds(self, sizes: Sizes, threads: int | None = None) -> float:
        """Seconds of a step of these sizes, from the engine's door and back. ``threads``: default as many as were
        measured.
        """
        return float(self.seconds_each(sizes, threads)[0])

    def seconds_each(self, sizes: SizesOfMany, threads: int | None = None) -> np.ndarray:
        """The same of many steps at once: f64 [n], where sizes are arrays of n, or one number for all."""
        count = max(map(_length, sizes.values()))
        if self._works is None:
            return np.full(count, self._fixed)
        each = self._works.seconds(sizes, count, self._ceilings, threads or self._ceilings.threads)
        return np.asarray(each + self._fixed)


@dataclass(frozen=True)
class _Works:
    """Different launches of a step, W of them, those of one function together."""

    monomials: tuple[str, ...]
    windows: Mapping[str, int]
    """By symbol, ``C@256``."""
    polynomials: np.ndarray
    """Coefficients [4 * W, monomials]: bytes streamed, bytes of values that the same step makes, calibrated seconds of
    handling and arithmetic, tasks."""
    repeats: np.ndarray
    """How many launches are alike [W]."""
    overhead: np.ndarray
    streaming: np.ndarray
    """Shares of the bandwidth [W, 1]."""
    starts: np.ndarray
    """Of each function's launches."""
    function: np.ndarray
    """Its index, of each launch [W]."""
    points: tuple[np.ndarray, np.ndarray]
    """Logarithms of working sets and of bandwidths."""

    @classmethod
    def of(cls, functions: Sequence[list[tuple[Work, int]]], profile: Profile) -> "_Works":
        works = [work for found in functions for work, _ in found]
        ceilings = profile.ceilings
        rates = [profile.rates(work.op, work.dtype) for work in works]
        polynomials = [p for w in works for p in (w.streamed, w.read, w.write, w.flops, w.tasks)]
        monomials = tuple(sorted({name for polynomial in polynomials for name in polynomial}))
        table = np.array([[polynomial.get(name, 0) for name in monomials] for polynomial in polynomials], float)
        streamed, read, write, flops, tasks = table.reshape(len(works), 5, len(monomials)).swapaxes(0, 1)
        core_bytes = np.array([ceilings.bandwidth[0].per_second * r.handling for r in rates])[:, None]
        core_flops = np.array([arithmetic(w, ceilings) * r.arithmetic for w, r in zip(works, rates, strict=True)])
        lengths = [len(found) for found in functions]
        return cls(
            monomials,
            {s: int(s.partition("@")[2]) for name in monomials for s in symbols(name) if "@" in s},
            np.concatenate(
                [streamed, read + write, (streamed + read + write) / core_bytes + flops / core_flops[:, None], tasks]
            ),
            np.array([count for found in functions for _, count in found], float),
            np.array([r.overhead for r in rates])[:, None],
            np.array([r.streaming for r in rates])[:, None],
            np.cumsum([0, *lengths[:-1]]),
            np.repeat(np.arange(len(functions)), lengths),
            (np.log([p.bytes for p in ceilings.bandwidth]), np.log([p.per_second for p in ceilings.bandwidth])),
        )

    def seconds(self, sizes: SizesOfMany, count: int, ceilings: Ceilings, threads: int) -> np.ndarray:
        """Of all launches together, in each of ``count`` steps [count]."""
        limited = {s: np.minimum(sizes["C"], limit) for s, limit in self.windows.items() if s not in sizes}
        known: Any = {**sizes, **limited}
        terms = np.empty((len(self.monomials), count))
        for row, name in zip(terms, self.monomials, strict=True):
            row[:] = monomial(name, known)
        streamed, values, core, tasks = (self.polynomials @ terms).reshape(4, -1, count)
        footprints = np.add.reduceat(self.repeats[:, None] * streamed, self.starts)
        footprints += np.maximum.reduceat(values, self.starts)
        per_second = np.exp(np.interp(np.log(np.maximum(footprints, 1.0)), *self.points))
        # One over the share of threads with something to do, where there is anything.
        idle = np.where(tasks > 0, threads * np.ceil(tasks / threads) / np.maximum(tasks, 1e-9), 1.0)
        idle *= ceilings.threads / threads
        each = combined(self.overhead, streamed / (per_second[self.function] * self.streaming), core, idle)
        return np.asarray(self.repeats @ each)


def _length(size: float | np.ndarray) -> int:
    return len(size) if isinstance(size, np.ndarray) else 1


def _grouped(function: FunctionPlan) -> list[tuple[Work, int]]:
    """Different works, and how many launches do each."""
    found: dict[str, tuple[Work, int]] = {}
    for work in (launch.work for launch in function.launches):
        if work is not None:
            key = work.model_dump_json()
            found[key] = (work, found.get(key, (work, 0))[1] + 1)
    return list(found.values())
