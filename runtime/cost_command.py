"""``xllmc inspect --cost``: what the cost model says of an engine, and what its kernels take on this machine."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .artifact.counts import Sizes, evaluate
from .artifact.errors import ArtifactError
from .artifact.reader import read_manifest
from .artifact.sizes import node_of
from .cost import footprint_of, launch_seconds
from .engine import Engine, KernelTime
from .machine import Choice, Profile, choose_profile, profile_isa
from .measure import StepShape, decode_shape, measure, prefill_shape, touch_memory

_ROUNDS = 15
_LONGEST = 512


@dataclass(frozen=True)
class KernelCost:
    """All launches of one kernel in a step; seconds of them together."""

    kernel: str
    kind: str
    """Op and dtype, as the profile names them; empty where the op states no cost."""
    launches: int
    predicted: float
    measured: float
    bytes: float
    flops: float

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


@dataclass(frozen=True)
class StepReport:
    """A step's kernels, those that take longest first."""

    name: str
    sizes: Sizes
    kernels: tuple[KernelCost, ...]

    @property
    def predicted(self) -> float:
        return sum(k.predicted for k in self.kernels)

    @property
    def measured(self) -> float:
        return sum(k.measured for k in self.kernels)

    @property
    def median_error(self) -> float:
        """Over kernels, relative."""
        return median(abs(k.ratio - 1) for k in self.kernels)


def show_cost(path: Path, threads: int | None, as_json: bool) -> None:
    """Time a decode step and a prefill step, and print both beside their predictions."""
    steps, choice, used = measured_steps(path, threads)
    if as_json:
        print(json.dumps(as_record(steps, choice, used)))
    else:
        print_tables(steps, choice, used)


def measured_steps(path: Path, threads: int | None = None) -> tuple[list[StepReport], Choice, int]:
    """A decode step and a prefill step of the engine, timed on this machine; whose predictions; and how many threads.

    Raises ArtifactError or OptionError where the engine does not run here.
    """
    manifest = read_manifest(path)
    room = 2 * min(_LONGEST, manifest.model.max_context) + 64
    with Engine.load(path, threads=threads, max_sequences=2, kv_tokens=room) as engine:
        choice = choose_profile(profile_isa(manifest.target))
        touch_memory(engine, min(_LONGEST, manifest.model.max_context))
        steps = [
            report_step("decode", engine, decode_shape(engine), choice.profile),
            report_step("prefill", engine, prefill_shape(engine), choice.profile),
        ]
        return steps, choice, threads_of(engine) or choice.profile.ceilings.threads


def threads_of(engine: Engine) -> int | None:
    """Of the kernels; None on a device, whose kernels have all of it."""
    return None if engine.capture is not None else engine.options.threads


def report_step(name: str, engine: Engine, shape: StepShape, profile: Profile) -> StepReport:
    """Measure the step and predict it."""
    times, sizes = measure(engine, shape, _ROUNDS)
    return StepReport(name, sizes, kernel_costs(times, sizes, profile, threads_of(engine)))


def kernel_costs(
    times: Sequence[KernelTime], sizes: Sizes, profile: Profile, threads: int | None
) -> tuple[KernelCost, ...]:
    """What was measured, by kernel, beside what the profile predicts. ArtifactError where the plan states no work."""
    times = launched(times)
    if all(time.work is None for time in times):
        raise ArtifactError("this engine's plan does not say what its launches cost; compile the engine again")
    functions = defaultdict(list)
    for time in times:
        if time.work is not None:
            functions[time.function].append(time.work)
    footprints = {name: footprint_of(((work, 1) for work in works), sizes) for name, works in functions.items()}
    groups: dict[tuple[str, str], list[KernelTime]] = defaultdict(list)
    for time in times:
        groups[time.function, time.kernel].append(time)
    costs = []
    for (function, kernel), group in groups.items():
        works = [time.work for time in group if time.work is not None]
        predicted = (len(group) - len(works)) * profile.ceilings.launch
        predicted += sum(launch_seconds(w, profile, sizes, footprints[function], threads) for w in works)
        moved = sum(evaluate(counts, sizes) for w in works for counts in (w.streamed, w.read, w.write))
        flops = sum(evaluate(w.flops, sizes) for w in works)
        kind = f"{works[0].op}/{works[0].dtype}" if works else ""
        measured = sum(time.seconds for time in group)
        costs.append(KernelCost(kernel, kind, len(group), predicted, measured, moved, flops))
    return tuple(sorted(costs, key=lambda cost: -cost.measured))


def launched(times: Sequence[KernelTime]) -> list[KernelTime]:
    """Without launches that the step's sizes left out. A node's work is that of the first of its launches that ran."""
    works = {(time.function, node_of(time.origin)): time.work for time in times if time.work is not None}
    ran = [time for time in times if time.seconds > 0]
    return [time._replace(work=works.pop((time.function, node_of(time.origin)), None)) for time in ran]


def as_record(steps: list[StepReport], choice: Choice, threads: int) -> dict[str, Any]:
    """What ``--json`` prints: seconds, bytes and operations of each kernel's launches together."""
    return {
        "profile": {
            "name": choice.profile.name,
            "note": choice.note,
            "measured_here": choice.measured_here,
            "threads": choice.profile.ceilings.threads,
        },
        "threads": threads,
        "steps": [
            {
                "name": step.name,
                "sizes": dict(step.sizes),
                "predicted": step.predicted,
                "measured": step.measured,
                "median_error": step.median_error,
                "kernels": [vars(kernel) | {"ratio": kernel.ratio} for kernel in step.kernels],
            }
            for step in steps
        ],
    }


def print_tables(steps: list[StepReport], choice: Choice, threads: int) -> None:
    """A table for each step: microseconds, and rates by what was measured."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 160)
    console.print(f"profile  {choice.profile.name}: {choice.note}", highlight=False, soft_wrap=True)
    if threads != choice.profile.ceilings.threads:
        console.print(f"         of {choice.profile.ceilings.threads} threads; this run has {threads}", highlight=False)
    for step in steps:
        sizes = ", ".join(f"{name}={size:g}" for name, size in step.sizes.items())
        table = Table(title=f"{step.name}: {sizes}", title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("kernel", no_wrap=True)
        for column in ("launches", "predicted us", "measured us", "ratio", "GB/s", "GFLOP/s"):
            table.add_column(column, justify="right", no_wrap=True)
        for k in step.kernels:
            rates = (f"{k.bytes / k.measured / 1e9:.1f}", f"{k.flops / k.measured / 1e9:.1f}")
            table.add_row(k.kernel, str(k.launches), *_times(k.predicted, k.measured), *rates)
        launches = sum(k.launches for k in step.kernels)
        table.add_row("total", str(launches), *_times(step.predicted, step.measured), style="bold")
        console.print()
        console.print(table)
        console.print(f"median error over kernels: {step.median_error:.0%}", highlight=False)


def _times(predicted: float, measured: float) -> tuple[str, str, str]:
    return f"{1e6 * predicted:.1f}", f"{1e6 * measured:.1f}", f"{predicted / measured:.2f}"
