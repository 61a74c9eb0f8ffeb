"""Where the small inputs of a step lie: one block of memory, the same on host and device, which a graph copies as one.

First come the inputs of the functions after forward, and the sizes, in the same places for all keys; then forward's
inputs, packed for each key, the block tables last: where these are large, graphs leave them out, and a step sends what
it has of them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..artifact.dtypes import ITEM_BYTES
from ..artifact.schema import FunctionPlan, InputEntry
from .keys import Key

SIZES = "sizes"
SIZES_BYTES = 20
"""T, S, R, B and Q as i32."""
_ALIGNMENT = 64
LARGE_TABLES = 64 << 10
"""Bytes of block tables that take longer to copy whole than a copy of their own takes to start."""
MERGE_GAP = 32 << 10
"""Bytes between two pieces that take less time to copy than a second copy takes to start."""

Name = tuple[str, str]
"""Function and input."""


class Span(NamedTuple):
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """Places of inputs under one key."""

    spans: Mapping[Name, Span]
    """By function and input, room for as much as the key holds. The sizes are those of no function."""
    size: int
    captured: int
    """Bytes from the start that the graph copies."""


def grows(entry: InputEntry) -> bool:
    """Whether an input's length follows none of a step's sizes: such ones lie elsewhere."""
    return any(isinstance(dim, str) and dim not in ("T", "S", "S+1", "R", "B") for dim in entry.shape)


def fixed_layout(functions: Iterable[FunctionPlan], most: Key, columns: int) -> Layout:
    """Inputs of the functions after forward, for the largest key, and the sizes."""
    spans: dict[Name, Span] = {}
    end = 0
    for function in functions:
        end = _place(spans, function.name, function.inputs, most, columns, end)
    spans["", SIZES] = Span(end, end + SIZES_BYTES)
    size = _aligned(end + SIZES_BYTES)
    return Layout(spans, size, size)


def key_layout(fixed: Layout, forward: FunctionPlan, key: Key, columns: int) -> Layout:
    """All inputs under ``key``."""
    spans = dict(fixed.spans)
    tables = [entry for entry in forward.inputs if "B" in entry.shape]
    others = [entry for entry in forward.inputs if "B" not in entry.shape]
    small = _place(spans, forward.name, others, key, columns, fixed.size)
    size = _place(spans, forward.name, tables, key, columns, small)
    return Layout(spans, size, small if size - small > LARGE_TABLES else size)


def merged(spans: Iterable[Span], gap: int = MERGE_GAP) -> tuple[Span, ...]:
    """The spans that cover all of these, joined where less than ``gap`` lies between; empty ones are left out."""
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.start < span.stop):
        if joined and span.start - joined[-1].stop < gap:
            joined[-1] = Span(joined[-1].start, max(joined[-1].stop, span.stop))
        else:
            joined.append(span)
    return tuple(joined)


def _place(
    spans: dict[Name, Span], function: str, inputs: Iterable[InputEntry], key: Key, columns: int, end: int
) -> int:
    sizes = {"T": key.tokens, "S": key.sequences, "S+1": key.sequences + 1, "R": key.rows, "B": columns}
    for entry in inputs:
        if not grows(entry):
            count = math.prod(dim if isinstance(dim, int) else sizes[dim] for dim in entry.shape)
            spans[function, entry.name] = Span(end, end + count * ITEM_BYTES[entry.dtype])
            end = _aligned(spans[function, entry.name].stop)
    return end


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT
