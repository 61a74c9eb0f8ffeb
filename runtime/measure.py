"""Steps of chosen sizes on a loaded engine, and what each of their launches takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import numpy as np

from .artifact.errors import OptionError
from .engine import Engine, KernelTime
from .sampling import RowRequest, SamplingParams, sampling_input
from .states.memory import SequenceStates
from .step import StepInput


class StepShape(NamedTuple):
    """``sequences`` alike: each brings ``tokens`` after ``past`` positions, and wants logits after its last one."""

    tokens: int
    sequences: int = 1
    past: int = 0

    def sizes(self, engine: Engine) -> dict[str, float]:
        """As the cost model takes them, windows of the engine's groups included."""
        seen = np.arange(self.past, self.past + self.tokens) + 1
        columns = -(-(self.past + self.tokens) // engine.memory.page_tokens)
        windows = {group.window for group in engine.manifest.groups if group.window is not None}
        return {
            "T": self.tokens * self.sequences,
            "S": self.sequences,
            "R": self.sequences,
            "B": columns,
            "C": float(seen.mean()),
            **{f"C@{window}": float(np.minimum(seen, window).mean()) for window in windows},
        }

    def kv_tokens(self, page_tokens: int) -> int:
        """Room that the sequences take, in whole pages."""
        return self.sequences * -(-(self.past + self.tokens) // page_tokens) * page_tokens


def decode_shape(engine: Engine) -> StepShape:
    """One token of one sequence, at position 511 or the last there can be."""
    return StepShape(1, past=min(511, engine.manifest.model.max_context - 1))


def prefill_shape(engine: Engine) -> StepShape:
    """A prompt of 512 tokens, or as many as one step and one sequence can have."""
    return StepShape(min(512, engine.capacities.tokens, engine.manifest.model.max_context))


def touch_memory(engine: Engine, tokens: int) -> None:
    """Run prompts of ``tokens`` in all, so that as many positions of the key-value memory are taken from the system
    and hold something. Steps measured later get the same pages.
    """
    each = min(engine.capacities.tokens, engine.manifest.model.max_context)
    with _sequences(engine, -(-tokens // each)) as held:
        for states in held:
            engine.step(_step(engine, [states], 0, each))


def measure(engine: Engine, shape: StepShape, rounds: int) -> tuple[tuple[KernelTime, ...], dict[str, float]]:
    """Every launch of the step, forward and sampling at temperature 1, timed ``rounds`` times; and its sizes.

    What the positions before it hold is whatever the memory holds: see ``touch_memory``.
    """
    with _prepared(engine, shape) as step:
        return engine.profile(step, rounds), shape.sizes(engine)


def step_seconds(engine: Engine, shape: StepShape, rounds: int) -> float:
    """Median over ``rounds`` of the whole step, from the engine's door and back."""
    with _prepared(engine, shape) as step:
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            engine.step(step)
            times.append(time.perf_counter() - began)
        return median(times)


@contextmanager
def _prepared(engine: Engine, shape: StepShape) -> Iterator[StepInput]:
    """The step, over pages that it has until the end."""
    with _sequences(engine, shape.sequences) as held:
        block = engine.capacities.tokens
        for states in held:
            for start in range(0, shape.past, block):
                _extend(engine, states, start, min(start + block, shape.past))
        yield _step(engine, held, shape.past, shape.past + shape.tokens, sampling=True)


@contextmanager
def _sequences(engine: Engine, count: int) -> Iterator[list[SequenceStates]]:
    """The states of so many sequences, given back at the end."""
    held = [engine.memory.open() for _ in range(count)]
    try:
        yield held
    finally:
        for states in held:
            engine.memory.release(states)


def _extend(engine: Engine, states: SequenceStates, start: int, stop: int) -> None:
    if not engine.memory.extend(states, start, stop):
        raise OptionError(
            f"measuring sequences of {stop} tokens needs more key-value memory than is free; "
            "load the engine with a larger kv_tokens"
        )


def _step(engine: Engine, held: list[SequenceStates], start: int, stop: int, sampling: bool = False) -> StepInput:
    """Positions ``start`` to ``stop`` of each sequence, of random tokens."""
    count, each = len(held), stop - start
    for states in held:
        _extend(engine, states, start, stop)
    tables = engine.memory.tables(held)
    vocabulary = engine.manifest.model.vocab_size
    tokens = np.random.default_rng(start).integers(0, vocabulary, count * each)
    starts = np.arange(count + 1) * each
    request = RowRequest(SamplingParams(), 0, 0, [0] * stop, stop)
    return StepInput(
        token_ids=tokens,
        positions=np.tile(np.arange(start, stop), count)[None],
        query_starts=starts,
        block_tables=tables,
        logit_rows=starts[1:] - 1,
        sampling=sampling_input([request] * count, vocabulary) if sampling else None,
    )
