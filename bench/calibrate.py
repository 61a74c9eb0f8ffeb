"""Measuring a machine's profile: its ceilings, and how near to them each kind of kernel comes.

Small models are compiled and every launch of steps of many sizes is timed; ``fit`` turns the times into rates. Models
and step sizes that the fit never saw say how good it is.
"""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from ..runtime.artifact.counts import Sizes
from ..runtime.artifact.isa import supported_isas
from ..runtime.artifact.schema import Work
from ..runtime.cost import MATRIX_OPS, footprint_of, parts, rated_seconds
from ..runtime.engine import Engine
from ..runtime.machine import Bandwidth, Ceilings, Profile, Rates, cpu_model
from ..runtime.measure import StepShape, measure, step_seconds, touch_memory
from .fit import Timed, fit_rates
from .floors import build_limits, run_limits
from .geometries import GEOMETRIES, Geometry, build

FITTED_STEPS = (
    *(StepShape(1, past=past) for past in (31, 255, 1023)),
    *(StepShape(1, sequences, past) for sequences, past in ((2, 767), (8, 255), (24, 127))),
    *(StepShape(tokens) for tokens in (4, 16, 64, 160, 512)),
    StepShape(128, past=384),
)
HELD_OUT_STEPS = (
    *(StepShape(1, past=past) for past in (127, 511, 799)),
    *(StepShape(1, sequences, past) for sequences, past in ((3, 511), (12, 150))),
    *(StepShape(tokens) for tokens in (6, 24, 100, 384)),
    StepShape(48, past=300),
)
BLOCKS = 3
"""Times that every step is measured, all others in between."""
SECONDS_PER_BLOCK = 0.06
MOST_ROUNDS, LEAST_ROUNDS = 24, 2
PAGE_TOKENS = 64
"""At least as many as any engine's."""
POSSIBLE = 0.4
"""A launch that takes less than this share of what the limits say was not timed as a whole."""
STEADY = 2.0
"""The middle half of a launch's times must lie within this factor."""
MODE_LEAST = 3
"""Times that a mode is made of, at the least."""


@dataclass(frozen=True)
class Sample:
    """Launches of one kernel in one step of one model: what each does, and all times that were measured."""

    model: str
    held_out: bool
    work: Work
    sizes: Sizes
    footprint: float
    times: np.ndarray
    seconds: float = 0.0
    """What it typically takes; 0 until it is ``settled``."""

    @property
    def kind(self) -> str:
        return f"{self.work.op}/{self.work.dtype}"


def calibrate(threads: int, say: Callable[[str], None], geometries: Sequence[Geometry] = GEOMETRIES) -> Profile:
    """Measure this machine with ``threads`` threads. ``say`` is told each of the ``stages`` as it begins."""
    with tempfile.TemporaryDirectory(prefix="xllmc-") as temporary:
        work = Path(temporary)
        say("limits of the machine")
        program = build_limits(work)
        limits = run_limits(program, threads, "curve")
        samples: list[Sample] = []
        beyond: list[float] = []
        for geometry in geometries:
            say(f"{geometry.name}: compiling")
            engine = build(geometry, work)
            say(f"{geometry.name}: measuring")
            found, overhead = collect(engine, geometry, threads)
            samples += found
            beyond.append(overhead)
        say("limits of the machine, again")
        again = run_limits(program, threads, "curve")
        best = {name: max(rate, again[name]) for name, rate in limits.items()}
    ceilings = ceilings_of(best, threads)
    samples = settled(samples, ceilings)
    return make_profile(samples, completed(ceilings, samples, beyond))


def completed(limits: Ceilings, samples: Sequence[Sample], beyond: Sequence[float]) -> Ceilings:
    """With the seconds of a launch, which are those of the quickest kernels, and of a step ``beyond`` its launches."""
    launch = float(np.quantile([s.seconds for s in samples], 0.01))
    return limits.model_copy(update={"launch": launch, "step": max(median(beyond), 0.0)})


def stages(geometries: Sequence[Geometry] = GEOMETRIES) -> int:
    """How often ``calibrate`` says something."""
    return 2 + 2 * len(geometries)


def ceilings_of(limits: Mapping[str, float], threads: int) -> Ceilings:
    """What ``limits.cpp`` printed: bandwidth by working set, and arithmetic; ``launch`` and ``step`` are left 0."""
    sets = {int(name.split()[1]): rate for name, rate in limits.items() if name.split()[1].isdigit()}
    arithmetic = {"f32": limits["fp32 peak"]} | ({"bf16": limits["bf16 peak"]} if "bf16 peak" in limits else {})
    curve = tuple(Bandwidth(bytes=size, per_second=rate) for size, rate in sorted(sets.items()))
    return Ceilings(threads=threads, bandwidth=curve, arithmetic=arithmetic, launch=0, step=0)


def collect(path: Path, geometry: Geometry, threads: int) -> tuple[list[Sample], float]:
    """Samples of one engine's steps, and the seconds that a step takes beyond its launches."""
    shapes = {shape: held_out for held_out, steps in ((False, FITTED_STEPS), (True, HELD_OUT_STEPS)) for shape in steps}
    room = max(shape.kv_tokens(PAGE_TOKENS) for shape in shapes)
    with Engine.load(path, threads=threads, kv_tokens=room) as engine:
        touch_memory(engine, room - room % engine.capacities.tokens)
        timed = {shape: Timings(engine, shape) for shape in shapes}
        for _ in range(BLOCKS):
            for timings in timed.values():
                timings.add()
        smallest = next(iter(timed.values()))
        overhead = min(step_seconds(engine, smallest.shape, MOST_ROUNDS) for _ in range(BLOCKS)) - smallest.seconds
    samples: list[Sample] = []
    for shape, timings in timed.items():
        samples += timings.samples(geometry.name, geometry.held_out or shapes[shape])
    return samples, overhead


class Timings:
    """What is known of one step's launches."""

    def __init__(self, engine: Engine, shape: StepShape) -> None:
        self.engine, self.shape = engine, shape
        self.launches, self.sizes = measure(engine, shape, 1)
        expected = sum(launch.seconds for launch in self.launches)
        self.rounds = min(max(int(SECONDS_PER_BLOCK / expected), LEAST_ROUNDS), MOST_ROUNDS)
        self.times: list[list[np.ndarray]] = [[] for _ in self.launches]

    def add(self) -> None:
        """Measure once more."""
        for times, launch in zip(self.times, measure(self.engine, self.shape, self.rounds)[0], strict=True):
            times.append(launch.rounds)

    @property
    def seconds(self) -> float:
        """Of all launches together."""
        return sum(typical(np.concatenate(times)) for times in self.times)

    def samples(self, model: str, held_out: bool) -> Iterator[Sample]:
        """One for each kernel of each function."""
        works: dict[str, list[Work]] = defaultdict(list)
        found: dict[tuple[str, str], tuple[Work, list[np.ndarray]]] = {}
        for launch, times in zip(self.launches, self.times, strict=True):
            if launch.work is not None:
                works[launch.function].append(launch.work)
                found.setdefault((launch.function, launch.kernel), (launch.work, []))[1].extend(times)
        for (function, _), (work, times) in found.items():
            footprint = footprint_of(((work, 1) for work in works[function]), self.sizes)
            yield Sample(model, held_out, work, self.sizes, footprint, np.concatenate(times))


def settled(samples: Iterable[Sample], ceilings: Ceilings) -> list[Sample]:
    """Samples with their typical time; those that were too disturbed to have one are left out.

    Only times that the machine's limits allow count: a launch that seems quicker did its work while the clock's own
    thread waited for a core.
    """
    found = []
    for sample in samples:
        streaming, handling, arithmetic, _ = parts(sample.work, ceilings, sample.sizes, sample.footprint)
        possible = sample.times[sample.times > max(streaming, handling, arithmetic) * POSSIBLE]
        if len(possible) and np.quantile(possible, 0.75) < STEADY * np.quantile(possible, 0.25):
            found.append(replace(sample, seconds=typical(possible)))
    return found


def typical(times: np.ndarray) -> float:
    """Where times lie closest, on a logarithmic scale: the half-sample mode (Robertson & Cryer, 1974), halved twice.

    On a busy machine a median will not do: a launch takes long when one of its threads waits for a core.
    """
    values = np.sort(np.log(times))
    for _ in range(2):
        half = -(-len(values) // 2)
        if half < MODE_LEAST:
            break
        start = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
        values = values[start : start + half]
    return float(np.exp(np.median(values)))


def make_profile(samples: Sequence[Sample], ceilings: Ceilings) -> Profile:
    """Fit each kind of kernel to its samples that are not held out."""
    kinds = sorted({s.kind for s in samples})
    fitted = {kind: fit_kind([s for s in samples if s.kind == kind], ceilings) for kind in kinds}
    rows = [s for s in samples if s.work.op not in MATRIX_OPS]
    return Profile(
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        isa=supported_isas()[-1],
        measured=time.strftime("%Y-%m-%d"),
        ceilings=ceilings,
        kernels={kind: rates for kind, rates in fitted.items() if rates.samples},
        other=fit_kind(rows, ceilings),
    )


def fit_kind(samples: Sequence[Sample], ceilings: Ceilings) -> Rates:
    """Rates for all these samples, and how well they predict the ones held out."""
    fitted = [s for s in samples if not s.held_out]
    timed = [Timed(parts(s.work, ceilings, s.sizes, s.footprint), s.seconds) for s in fitted]
    overhead, streaming, handling, arithmetic = fit_rates(timed, ceilings.launch)
    rates = Rates(overhead=overhead, streaming=streaming, handling=handling, arithmetic=arithmetic)
    held_out = [s for s in samples if s.held_out]
    return rates.model_copy(
        update={
            "samples": len(fitted),
            "error": median_error(fitted, rates, ceilings),
            "held_out_samples": len(held_out),
            "held_out_error": median_error(held_out, rates, ceilings) if held_out else None,
        }
    )


def median_error(samples: Iterable[Sample], rates: Rates, ceilings: Ceilings) -> float:
    """Of predicted seconds against measured, relative."""
    return median(
        abs(rated_seconds(parts(s.work, ceilings, s.sizes, s.footprint), rates) / s.seconds - 1) for s in samples
    )
