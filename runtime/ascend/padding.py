"""Steps made as large as the graph that is to run them: the sizes of a captured graph are fixed.

Padding tokens belong to sequences of their own, which read and write one page that no real sequence has. Nothing wants
their logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]


class Sizes(NamedTuple):
    """Of a step, or of the graph that runs it."""

    tokens: int
    sequences: int
    rows: int
    """Of logits."""
    most: int
    """Tokens that one sequence may have."""

    def holds(self, step: "Sizes") -> bool:
        """Whether padding makes ``step`` this large: tokens that are missing need sequences to be in."""
        missing = self.tokens - step.tokens
        room = (self.sequences - step.sequences) * self.most
        return 0 <= missing <= room and step.rows <= self.rows and step.most <= self.most


def sizes_of(step: Arrays) -> Sizes:
    """``step``: the inputs of ``forward``."""
    counts = np.diff(step["query_starts"])
    return Sizes(len(step["token_ids"]), len(counts), len(step["logit_rows"]), int(counts.max(initial=0)))


@dataclass(frozen=True)
class Filled:
    """A step as the module takes it."""

    arrays: Arrays
    """i32, by input."""
    query_ends: list[int]
    kv_lengths: list[int]


def filled(step: Arrays, sizes: Sizes, columns: int, page_tokens: int, spare_pages: Mapping[str, int]) -> Filled:
    """``step`` with padding up to ``sizes``, which hold it, and to ``columns`` of its block tables.

    ``spare_pages``: by state group (``0``, ``1``), the page that padding may use.
    """
    real = sizes_of(step)
    left, added = sizes.tokens - real.tokens, []
    for _ in range(sizes.sequences - real.sequences):
        added.append(min(left, sizes.most))
        left -= added[-1]
    places = np.concatenate([np.arange(0), *(np.arange(count) for count in added)])
    starts = np.concatenate([step["query_starts"], real.tokens + np.cumsum(added, dtype=np.int64)])
    last = step["positions"][step["query_starts"][1:] - 1]
    arrays = {
        "token_ids": np.concatenate([step["token_ids"], np.zeros(len(places))]),
        "positions": np.concatenate([step["positions"], places]),
        "query_starts": starts,
        "logit_rows": np.concatenate([step["logit_rows"], np.zeros(sizes.rows - real.rows)]),
    }
    for group, page in spare_pages.items():
        table = np.full((sizes.sequences, columns), page)
        table[: real.sequences, : step[f"block_table.{group}"].shape[1]] = step[f"block_table.{group}"]
        arrays[f"block_table.{group}"] = table
        arrays[f"slots.{group}"] = np.concatenate([step[f"slots.{group}"], page * page_tokens + places % page_tokens])
    if "ancestors" in step:
        # Every node sees one at least: what nothing was seen for is not a number, and would lie in the spare page.
        words = np.zeros((len(places), step["ancestors"].shape[1]), np.uint32)
        bit = places % (32 * words.shape[1])
        words[np.arange(len(places)), bit // 32] = np.left_shift(np.uint32(1), (bit % 32).astype(np.uint32))
        arrays["ancestors"] = np.concatenate([step["ancestors"].astype(np.int32), words.view(np.int32)])
    lengths = [*(last + 1).tolist(), *(max(count, 1) for count in added)]
    typed = {name: np.ascontiguousarray(values, np.int32) for name, values in arrays.items()}
    return Filled(typed, starts[1:].tolist(), lengths)


def padding_alone(
    sizes: Sizes, columns: int, page_tokens: int, spare_pages: Mapping[str, int], words: int = 0
) -> Filled:
    """A step of these sizes in which nothing is real: what a graph is captured on.

    ``words``: of each row of ``ancestors``, where the model takes them.
    """
    nothing = {
        "token_ids": np.zeros(0),
        "positions": np.zeros(0, int),
        "query_starts": np.zeros(1, int),
        "logit_rows": np.zeros(0),
    }
    if words:
        nothing["ancestors"] = np.zeros((0, words))
    for group in spare_pages:
        nothing |= {f"block_table.{group}": np.zeros((0, columns)), f"slots.{group}": np.zeros(0)}
    return filled(nothing, sizes, columns, page_tokens, spare_pages)
