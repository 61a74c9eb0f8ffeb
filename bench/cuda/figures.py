"""Speed of one engine: decoding, prefill, capture and the host's gap, as shares of the device's limits."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from ...runtime.artifact.counts import evaluate
from ...runtime.artifact.errors import OptionError
from ...runtime.artifact.reader import read_plan
from ...runtime.artifact.schema import Plan, Work
from ...runtime.engine import Engine
from ...runtime.observe import RequestRecord, StepRecord
from ...runtime.options import SchedulingOptions
from ...runtime.sampling import SamplingParams
from .device import Limits

PROMPT, PREFILL, NEW = 128, 2048, 192
SKIPPED = 8
"""Steps at either end of a run that are not counted: they are not yet, or no longer, like the others."""


@dataclass(frozen=True)
class Decode:
    """Medians over all steps in which ``sequences`` wrote one token each."""

    sequences: int
    context: int
    """Mean positions of a sequence meanwhile."""
    step_seconds: float
    """From one step's start to the next one's."""
    gap_seconds: float
    """From the end of a step until all of the next one had been given to the device, on the host's clock."""
    tokens_per_second: float
    bytes: float
    """Of weights and states that a step reads."""
    flops: float
    limit_seconds: float
    """What the binding limit allows: bytes at the copy bandwidth, or operations at the matrix rate."""

    @property
    def share(self) -> float:
        return self.limit_seconds / self.step_seconds


@dataclass(frozen=True)
class Prefill:
    tokens: int
    seconds: float
    """To the first token of a prompt that is computed in one step."""
    flops: float
    share: float
    """Of the measured matrix rate."""


@dataclass(frozen=True)
class Speed:
    load_seconds: float
    """With capture."""
    capture_seconds: float
    graphs: int
    decode: tuple[Decode, ...]
    prefill: Prefill


class _Steps:
    """Keeps the records of steps."""

    kernel_times = False

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def step(self, record: StepRecord) -> None:
        self.records.append(record)

    def request(self, record: RequestRecord) -> None:
        """Of no use here."""


def load(engine: Path) -> tuple[Engine, float]:
    """Ready for prompts of 2,048 tokens in one step and 64 sequences, and the seconds that took."""
    began = time.perf_counter()
    longest = PREFILL + PROMPT + NEW
    loaded = Engine.load(
        engine,
        max_tokens=PREFILL,
        max_rows=64,
        max_sequences=64,
        kv_tokens=64 * (PROMPT + NEW) + longest,
        scheduling=SchedulingOptions(prefix_cache=False),
    )
    return loaded, time.perf_counter() - began


def measure_speed(engine: Path, limits: Limits, rounds: int, batches: tuple[int, ...] = (1, 64)) -> Speed:
    """All figures of one engine, medians over ``rounds``."""
    works = forward_works(read_plan(engine))
    loaded, load_seconds = load(engine)
    with loaded:
        decode = tuple(measure_decode(loaded, works, limits, count, rounds) for count in batches)
        prefill = measure_prefill(loaded, works, limits, rounds)
        capture = loaded.capture
    if capture is None:
        raise OptionError(f"speed on a GPU is that of an engine for cuda, got {engine}; compile with --target cuda")
    return Speed(load_seconds, capture.seconds, capture.graphs, decode, prefill)


def measure_decode(engine: Engine, works: tuple[Work, ...], limits: Limits, sequences: int, rounds: int) -> Decode:
    params = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True)
    vocabulary = engine.manifest.model.vocab_size
    draw = np.random.default_rng(0)
    periods, gaps = [], []
    for _ in range(rounds):
        steps = _Steps()
        engine.observe(steps)
        engine.generate(draw.integers(3, vocabulary, (sequences, PROMPT)).tolist(), params)
        engine.unobserve(steps)
        full = [s for s in steps.records if s.decoding == s.sequences == sequences][SKIPPED:-SKIPPED]
        pairs = list(pairwise(full))
        periods += [after.began - before.began for before, after in pairs]
        gaps += [after.launched - before.ended for before, after in pairs]
    period, context = median(periods), PROMPT + NEW / 2
    sizes = {"T": sequences, "S": sequences, "R": sequences, "B": context / 32, "C": context}
    moved, flops = totals(works, sizes)
    limit = max(moved / limits.copy_bytes_per_second, flops / limits.matrix_flops)
    rate = sequences / period
    return Decode(sequences, int(context), period, median(gaps), rate, moved, flops, limit)


def measure_prefill(engine: Engine, works: tuple[Work, ...], limits: Limits, rounds: int) -> Prefill:
    """The step that holds all of one prompt, on the executor's clock."""
    params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    draw = np.random.default_rng(1)
    took = []
    for _ in range(rounds + 1):
        steps = _Steps()
        engine.observe(steps)
        engine.generate(draw.integers(3, engine.manifest.model.vocab_size, (1, PREFILL)).tolist(), params)
        engine.unobserve(steps)
        took += [s.ended - s.began for s in steps.records if s.tokens == PREFILL]
    seconds = median(took[1:])
    sizes = {"T": PREFILL, "S": 1, "R": 1, "B": PREFILL / 32, "C": PREFILL / 2}
    _, flops = totals(works, sizes)
    return Prefill(PREFILL, seconds, flops, flops / seconds / limits.matrix_flops)


def forward_works(plan: Plan) -> tuple[Work, ...]:
    forward = next(function for function in plan.functions if function.name == "forward")
    return tuple(launch.work for launch in forward.launches if launch.work is not None)


def totals(works: tuple[Work, ...], sizes: Mapping[str, float]) -> tuple[float, float]:
    """Bytes of weights and states, and operations of matrix products and attention, of a step."""
    matrix = ("linear", "paged_attention")
    moved = sum(evaluate(work.streamed, sizes) for work in works)
    return moved, sum(evaluate(work.flops, sizes) for work in works if work.op in matrix)
