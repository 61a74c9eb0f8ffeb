"""What ``xllmc inspect`` tells of an engine's device kernels: resources, tiles, and how long they should take."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .artifact.counts import Sizes
from .artifact.schema import DeviceKernel, Plan
from .artifact.sizes import holds, node_of
from .cost import DECODE, PREFILL, footprint_of, launch_seconds
from .machine import Choice, Profile

_STEPS = {"decode": {**DECODE, "Q": 1}, "prefill": {**PREFILL, "Q": 512}}
"""Sizes of the cost model's two usual steps."""


@dataclass(frozen=True)
class KernelLine:
    """A kernel, and the seconds that all its launches take in a step that has them; None in one that has none."""

    kernel: DeviceKernel
    launches: int
    """In the whole plan, for all numbers of tokens."""
    decode: float | None
    """One sequence at a context of 512."""
    prefill: float | None
    """One prompt of 512."""

    def as_json(self) -> dict[str, object]:
        seconds = {"decode": self.decode, "prefill": self.prefill}
        return {**self.kernel.model_dump(), "launches": self.launches, "predicted_seconds": seconds}


def kernel_lines(plan: Plan, choice: Choice | None) -> list[KernelLine]:
    """One for each device kernel of a plan, those with most launches first. Without a profile nothing is predicted."""
    counts = Counter(launch.kernel for function in plan.functions for launch in function.launches)
    times = {name: _step_times(plan, choice.profile, sizes) if choice else {} for name, sizes in _STEPS.items()}
    lines = [
        KernelLine(kernel, counts[kernel.name], times["decode"].get(kernel.name), times["prefill"].get(kernel.name))
        for kernel in plan.device_kernels
    ]
    return sorted(lines, key=lambda line: (-line.launches, line.kernel.name))


def _step_times(plan: Plan, profile: Profile, sizes: Sizes) -> dict[str, float]:
    """Seconds by kernel. A node's work counts for the first of its launches that runs; further ones are bare."""
    known = {symbol: int(sizes[symbol]) for symbol in ("T", "S", "R", "B", "Q")}
    launches = [(f.name, launch) for f in plan.functions if f.name != "score" for launch in f.launches]
    works = {(name, node_of(launch.origin)): launch.work for name, launch in launches if launch.work is not None}
    footprint = footprint_of([(work, 1) for work in works.values()], sizes)
    seconds: dict[str, float] = {}
    for name, launch in launches:
        if not holds(launch.when, known):  # type: ignore[arg-type]
            continue
        work = works.pop((name, node_of(launch.origin)), None)
        took = profile.ceilings.launch if work is None else launch_seconds(work, profile, sizes, footprint)
        seconds[launch.kernel] = seconds.get(launch.kernel, 0.0) + took
    return seconds


def table(lines: list[KernelLine]) -> Iterator[str]:
    """The kernels as text."""
    heads = ("launches", 9), ("regs", 6), ("spilled", 9), ("shared", 9), ("warps", 7), ("decode", 11), ("prefill", 11)
    yield f"{'device kernel':<44}{''.join(f'{head:>{size}}' for head, size in heads)}"
    for line in lines:
        kernel = line.kernel
        # Without a binary nobody knows.
        shared = kernel.shared_bytes if kernel.registers is not None else None
        yield (
            f"{kernel.name:<44}{line.launches:>9}{_known(kernel.registers):>6}{_known(kernel.spilled_bytes):>9}"
            f"{_known(shared):>9}{kernel.warps:>7}{_time(line.decode):>11}{_time(line.prefill):>11}"
        )
        if kernel.config:
            yield f"    {', '.join(f'{name} {size}' for name, size in kernel.config.items())}"


def _known(count: int | None) -> str:
    return "-" if count is None else str(count)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:.1f} us"
