"""The closed set of sizes that graphs are captured for, and which of them a step runs under.

A decode key has one token, and at most one row, of each sequence; under a mixed key a sequence may have all tokens.
Kernels read a step's real sizes, so a key only has to be large enough: what lies between costs programs that end at
once.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ..artifact.sizes import DeviceSizes
from ..backend import StepSizes
from ..plan import Capacities

_SMALLEST_MIXED = 16
_STEP = 8
_WIDE_FROM = 256
_WIDE_STEP = 32


class Key(NamedTuple):
    """Sizes that a graph is captured for; a smaller key costs less."""

    tokens: int
    sequences: int
    rows: int
    most_tokens: int
    """Of one sequence."""

    def holds(self, sizes: StepSizes) -> bool:
        """Whether a step of these sizes can run under it."""
        return (
            sizes.tokens <= self.tokens
            and sizes.sequences <= self.sequences
            and sizes.rows <= self.rows
            and sizes.most_tokens <= self.most_tokens
        )

    def sizes(self, table_columns: int) -> DeviceSizes:
        """As grids and conditions name them."""
        return {"T": self.tokens, "S": self.sequences, "R": self.rows, "B": table_columns, "Q": self.most_tokens}


def counts(limit: int) -> tuple[int, ...]:
    """1, 2, 4, then multiples of 8, from 256 on of 32, and ``limit``: the last one."""
    small = [n for n in (1, 2, 4) if n < limit]
    narrow = range(_STEP, min(limit, _WIDE_FROM + 1), _STEP)
    wide = range(_WIDE_FROM + _WIDE_STEP, limit, _WIDE_STEP)
    return (*small, *narrow, *wide, limit)


def forward_keys(capacities: Capacities) -> tuple[Key, ...]:
    """All keys, cheapest first; the last mixed one holds every step within ``capacities``."""
    tokens, sequences, rows = capacities.tokens, capacities.sequences, capacities.rows
    decode = [Key(n, n, min(n, rows), 1) for n in counts(min(tokens, sequences))]
    mixed, size = [], _SMALLEST_MIXED
    while size < tokens:
        mixed.append(Key(size, min(size, sequences), min(size, rows), size))
        size *= 2
    mixed.append(Key(tokens, min(tokens, sequences), rows, tokens))
    return tuple(sorted({*decode, *mixed}))


def choose(keys: Sequence[Key], sizes: StepSizes) -> Key:
    """The cheapest of ``forward_keys`` that holds a step; there is one for every step within the capacities."""
    return next(key for key in keys if key.holds(sizes))


def choose_rows(keys: Sequence[Key], rows: int) -> Key:
    """The cheapest key that holds so many rows of logits."""
    return next(key for key in keys if rows <= key.rows)
