"""Feeding an engine step by step: any sequences, in any chunks, in any company."""

from collections.abc import Iterable, Sequence

import numpy as np
from xllmc.runtime.engine import Engine
from xllmc.runtime.step import StepInput

Step = list[tuple[int, int]]
"""Which sequences take part in a step, and with how many of their next tokens."""


def step_logits(engine: Engine, sequences: Sequence[Sequence[int]], schedule: Iterable[Step]) -> list[np.ndarray]:
    """Logits after every token of every sequence, [T, V] each, computed in the steps that ``schedule`` says."""
    states = [engine.memory.open() for _ in sequences]
    done = [0] * len(sequences)
    results: list[list[np.ndarray]] = [[] for _ in sequences]
    for step in schedule:
        spans = [(s, done[s], done[s] + count) for s, count in step]
        for s, start, stop in spans:
            room = engine.memory.extend(states[s], start, stop)
            assert room, "the engine was loaded with too little key-value memory for this test"
            done[s] = stop
        starts = np.cumsum([0, *(stop - start for _, start, stop in spans)], dtype=np.int32)
        output = engine.step(
            StepInput(
                token_ids=np.concatenate([sequences[s][start:stop] for s, start, stop in spans]).astype(np.int32),
                positions=np.concatenate([np.arange(a, b, dtype=np.int32) for _, a, b in spans])[None],
                query_starts=starts,
                block_tables=engine.memory.tables([states[s] for s, _, _ in spans]),
                logit_rows=np.arange(starts[-1], dtype=np.int32),
            )
        )
        for (s, _, _), rows in zip(spans, np.split(output.logits.copy(), starts[1:-1]), strict=True):
            results[s].append(rows)
    for held in states:
        engine.memory.release(held)
    assert done == [len(tokens) for tokens in sequences], "the schedule must feed every token once"
    return [np.concatenate(rows) for rows in results]


def one_prefill(length: int) -> list[Step]:
    return [[(0, length)]]


def decode(length: int) -> list[Step]:
    """One token a step."""
    return [[(0, 1)]] * length


def chunks(length: int, sizes: Iterable[int]) -> list[Step]:
    """Chunks of the given sizes, the last cut short or prolonged to the end."""
    schedule, done = [], 0
    for size in sizes:
        if done < length:
            schedule.append([(0, min(size, length - done))])
            done += size
    return schedule if done >= length else [*schedule, [(0, length - done)]]


def random_schedule(rng: np.random.Generator, lengths: Sequence[int], most: int = 256) -> list[Step]:
    """Sequences join, pause, prefill in chunks and decode side by side, with at most ``most`` tokens in a step."""
    left = dict(enumerate(lengths))
    schedule: list[Step] = []
    while left:
        waiting = rng.permutation(list(left))
        step: Step = []
        room = most
        for s in waiting[: rng.integers(1, len(waiting) + 1)].tolist():
            count = min(left[s], room, int(rng.choice([1, 2, 5, 31, 32, 33, 64])))
            if count:
                step.append((s, count))
                room -= count
                left[s] -= count
                if not left[s]:
                    del left[s]
        schedule.append(step)
    return schedule
