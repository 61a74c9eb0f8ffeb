"""What the report is told about a compile, pass by pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..ir.program import Program

Costs = Mapping[str, Mapping[str, tuple[float, float | None]]]
"""Phase (``decode``, ``prefill``) to kernel to microseconds of all its launches in a step: predicted, and measured."""


class NearMiss(NamedTuple):
    """Where a pass nearly matched: a module path or the name of a value, and why it did not."""

    place: str
    reason: str


@dataclass(frozen=True)
class Step:
    """One pass that ran."""

    name: str
    stage: str
    numerics: str
    matches: int
    sites: tuple[str, ...]
    """Module paths, or names of values, of the matches."""
    near_misses: tuple[NearMiss, ...]
    seconds: float
    program: Program
    """What the pass left."""
