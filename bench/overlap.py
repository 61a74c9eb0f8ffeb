"""What a step costs when the host has work to do beside it: the loop's own, and more that is put on top."""

import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from ..runtime.artifact.errors import OptionError
from ..runtime.engine import Engine
from ..runtime.observe import RequestRecord, StepRecord
from ..runtime.sampling import SamplingParams

_TRIAL_STEPS = 60
"""To find a batch whose step takes as long as it should."""
_WARM_STEPS = 5
"""Of each run, left out at both ends."""


@dataclass(frozen=True)
class Overlap:
    """Medians over all decoding steps of all rounds, in milliseconds."""

    sequences: int
    threads: int
    rounds: int
    host_ms: float
    """Python's own work for a step: choosing and preparing it, and handing out what it gave."""
    step_ms: float
    period_ms: float
    """From one step's start to the next one's."""
    gap_ms: float
    """From one step's end to the next one's start."""
    injected_ms: float
    step_with_ms: float
    """The step itself with work injected beside it: both share the machine."""
    period_with_ms: float
    gap_with_ms: float


class _Watcher:
    """Remembers steps; and is busy for a while after each, holding Python's lock, as handing out much text would be."""

    kernel_times = False

    def __init__(self, busy_seconds: float) -> None:
        self.steps: list[StepRecord] = []
        self._busy_seconds = busy_seconds

    def step(self, record: StepRecord) -> None:
        self.steps.append(record)
        until = time.perf_counter() + self._busy_seconds
        while time.perf_counter() < until:
            pass

    def request(self, record: RequestRecord) -> None:
        pass


def measure_overlap(engine: Engine, step_ms: float, injected_ms: float, steps: int, rounds: int) -> Overlap:
    """``step_ms``: how long a step should take; as many sequences decode together as come nearest to it."""
    sequences = _batch_for(engine, step_ms)
    plain: list[list[StepRecord]] = []
    loaded: list[list[StepRecord]] = []
    for _ in range(rounds):
        plain.append(_decode(engine, sequences, steps, 0.0))
        loaded.append(_decode(engine, sequences, steps, injected_ms / 1e3))
    return Overlap(
        sequences=sequences,
        threads=int(engine.options.threads),
        rounds=rounds,
        host_ms=_milliseconds(
            [s.schedule_ended - s.schedule_began + s.process_ended - s.process_began for run in plain for s in run]
        ),
        step_ms=_milliseconds([s.ended - s.began for run in plain for s in run]),
        period_ms=_milliseconds(_periods(plain)),
        gap_ms=_milliseconds(_gaps(plain)),
        injected_ms=injected_ms,
        step_with_ms=_milliseconds([s.ended - s.began for run in loaded for s in run]),
        period_with_ms=_milliseconds(_periods(loaded)),
        gap_with_ms=_milliseconds(_gaps(loaded)),
    )


def _batch_for(engine: Engine, step_ms: float) -> int:
    most = min(engine.capacities.sequences, engine.capacities.rows)
    found = {}
    low, high = 1, most
    while low <= high:
        middle = (low + high) // 2
        found[middle] = _milliseconds([s.ended - s.began for s in _decode(engine, middle, _TRIAL_STEPS, 0.0)])
        low, high = (middle + 1, high) if found[middle] < step_ms else (low, middle - 1)
    return min(found, key=lambda count: abs(found[count] - step_ms))


def _decode(engine: Engine, sequences: int, steps: int, busy_seconds: float) -> list[StepRecord]:
    """The steps in which all sequences decoded, but for the first and last few."""
    watcher = _Watcher(busy_seconds)
    engine.observe(watcher)
    params = SamplingParams(temperature=0.8, seed=1, max_tokens=steps, ignore_eos=True)
    vocabulary = engine.manifest.model.vocab_size
    engine.generate([[i % vocabulary, i // vocabulary % vocabulary] for i in range(sequences)], params)
    engine.unobserve(watcher)
    whole = [step for step in watcher.steps if step.decoding == step.tokens == sequences][_WARM_STEPS:-_WARM_STEPS]
    if len(whole) < _WARM_STEPS:
        raise OptionError(
            f"{sequences} sequences must decode together for {steps} steps, which this engine's memory does not allow; "
            "free some, or take a smaller model"
        )
    return whole


def _periods(runs: list[list[StepRecord]]) -> list[float]:
    return [after.began - before.began for run in runs for before, after in pairwise(run)]


def _gaps(runs: list[list[StepRecord]]) -> list[float]:
    return [after.began - before.ended for run in runs for before, after in pairwise(run)]


def _milliseconds(seconds: list[float]) -> float:
    return median(seconds) * 1e3
