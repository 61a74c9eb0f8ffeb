"""Steps on which what was emitted is run: of one token, a prefill, a decode and a mixed one.

Pages lie scattered; those that no token may see, and slots not yet written, hold what is not a number, so that one read
too many shows in the result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ...runtime.artifact.pages import PAGE_TOKENS
from ..ir.program import Program
from ..ops.attention import PagedCache


@dataclass(frozen=True)
class SampleStep:
    name: str
    inputs: dict[str, torch.Tensor]
    states: dict[str, PagedCache]


Spans = list[tuple[int, int]]
"""By sequence: positions it has already, and tokens that this step adds."""


def sample_steps(program: Program) -> Iterator[SampleStep]:
    """Deterministic. Positions stand at the edge of a page, and of the longest window, as far as the context goes."""
    most = program.facts.max_context
    edge = max([PAGE_TOKENS, *(g.window for g in program.groups if g.window)])
    plans: dict[str, Spans] = {
        "one token": [(0, 1)],
        "prefill": [(0, 7)],
        "decode": [(edge, 1), (0, 1), (edge + PAGE_TOKENS, 1)],
        "mixed": [(edge - 2, 4), (3, 1), (0, 3)],
    }
    for seed, (name, spans) in enumerate(plans.items()):
        fitting = [(max(0, min(past, most - new)), min(new, most)) for past, new in spans]
        yield sample_step(program, name, fitting, np.random.default_rng(seed))


def sample_step(program: Program, name: str, spans: Spans, rng: np.random.Generator) -> SampleStep:
    """``spans`` of one step over caches of random content; of each sequence the last token's row is wanted, in turned
    order.
    """
    starts = np.cumsum([0, *(new for _, new in spans)])
    positions = np.concatenate([np.arange(past, past + new) for past, new in spans])
    owners = np.repeat(np.arange(len(spans)), [new for _, new in spans])
    columns = max((past + new - 1) // PAGE_TOKENS + 1 for past, new in spans)
    inputs = {
        "token_ids": rng.integers(0, program.facts.vocab_size, len(positions)),
        "positions": positions,
        "query_starts": starts,
        "logit_rows": (starts[1:] - 1)[::-1],
    }
    trees = [n.meta["type"].shape[1] for n in program.forward.inputs if n.target == "ancestors"]
    for words in trees:
        inputs["ancestors"] = chain_words(positions - np.repeat([p for p, _ in spans], [n for _, n in spans]), words)
    tables = {}
    for group in program.groups:
        pages = rng.permutation(len(spans) * columns + 1)
        table = block_table(spans, columns, pages, group.window)
        tables[group.index] = table
        slots = table[owners, positions // PAGE_TOKENS] * PAGE_TOKENS + positions % PAGE_TOKENS
        inputs |= {f"slots.{group.index}": slots, f"block_table.{group.index}": table}
    states = {}
    for state, kind in program.states.items():
        written = written_slots(spans, tables[kind.group])
        parts = []
        for dim in (kind.key_dim, kind.value_dim):
            cache = np.full(((len(spans) * columns + 1) * PAGE_TOKENS, kind.kv_heads, dim), np.nan, np.float32)
            cache[written] = rng.standard_normal((len(written), kind.kv_heads, dim), np.float32)
            parts.append(torch.from_numpy(cache))
        states[state] = PagedCache(*parts)
    typed = {key: torch.from_numpy(np.ascontiguousarray(value, np.int32)) for key, value in inputs.items()}
    return SampleStep(name, typed, states)


def chain_words(nodes: np.ndarray, words: int) -> np.ndarray:
    """``ancestors`` of tokens one after the other; nodes: each token's place in its sequence's step, below 31."""
    chain = np.zeros((len(nodes), words), np.int64)
    chain[:, 0] = (1 << (nodes + 1)) - 1
    return chain


def block_table(spans: Spans, columns: int, pages: np.ndarray, window: int | None) -> np.ndarray:
    """Each sequence's own pages; -1 for those behind its window, and a page of nobody's behind its end."""
    table = pages[:-1].reshape(len(spans), columns).copy()
    for row, (past, new) in zip(table, spans, strict=True):
        row[(past + new - 1) // PAGE_TOKENS + 1 :] = pages[-1]
        if window:
            row[: max(0, past - window + 1) // PAGE_TOKENS] = -1
    return table


def written_slots(spans: Spans, table: np.ndarray) -> np.ndarray:
    """Slots of the positions that sequences have already, as far as their pages are kept."""
    slots = []
    for row, (past, _) in zip(table, spans, strict=True):
        positions = np.arange(past)
        page = row[positions // PAGE_TOKENS]
        slots.append((page * PAGE_TOKENS + positions % PAGE_TOKENS)[page >= 0])
    return np.concatenate(slots)
