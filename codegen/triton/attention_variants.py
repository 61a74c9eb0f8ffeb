"""Which kernels compute attention in which steps.

Two kinds of launches cover a step. *few*: sequences with so few tokens (one, mostly) that they fill the least tile have
a program each. All others are computed in tiles of neighbouring tokens, larger ones (*many*) where there are many
(*some*). A step in which all sequences decode needs *few* alone, a mixed one both.

Where programs are so few that multiprocessors would be idle, several share a context: each leaves its sums in float32,
and a second kernel puts them together. Grids are sized for what a step was captured for, not for what it has. In mixed
steps, sequences may be as many as the engine holds, so nothing but *few* has a program for each.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ...runtime.artifact.schema import Condition
from .architecture import Architecture
from .attention_tiles import Geometry, Tile, parts, splits, tile
from .kernel import power_of_two, when

_LEAST_ROWS = 16
"""Of matrix instructions."""

_SOME_ROWS, _MANY_ROWS = 64, 128

_FEW_PROGRAMS = 2048
"""Of *few* in a mixed step: one that finds no sequence ends after some loads, but it does take its turn."""

_FEW_SPLITS = 8
"""Of a context in a mixed step, which takes a while in any case."""

MOST_SUMS = 32 << 20
"""Bytes that sums of shared contexts may take, once for all layers. With more, programs do not share."""

Which = Literal["sequence", "tokens"]
"""What a program has: one of the sequences with at most ``short`` tokens, or some tokens of all others."""

Pieces = Literal["none", "splits", "parts", "serial"]
"""Of a context: ``attention.py.j2``."""


class Variant(NamedTuple):
    part: str
    tile: Tile
    which: Which
    when: tuple[Condition, ...]
    pieces: Pieces
    programs: int
    """That share a context."""
    slots: int
    """Most tokens that leave sums behind; 0 where none do."""
    short: int
    """Most tokens of a sequence that is one of the few."""


class _Kind(NamedTuple):
    """What all variants of a call have in common."""

    shape: Geometry
    machine: Architecture
    short: int
    pieces: int
    """Most that a context can be cut into."""
    alone: Pieces
    shared: Pieces

    def variant(
        self, part: str, one: Tile, which: Which, conditions: tuple[Condition, ...], programs: int, slots: int
    ) -> Variant:
        pieces = self.pieces if self.shared == "parts" else programs
        if programs > 1 and slots * self.shape.heads * pieces * self.shape.value_dim * 4 <= MOST_SUMS:
            return Variant(part, one, which, conditions, self.shared, programs, slots, self.short)
        return Variant(part, one, which, conditions, self.alone, 1, 0, self.short)

    def programs(self, one: Tile, tiles: int) -> int:
        """That share a context, so that ``tiles`` tiles of each head fill the multiprocessors twice."""
        return splits(tiles * self.shape.kv_heads * one.folds, self.pieces, 2 * self.machine.multiprocessors)


def variants(shape: Geometry, context: int, machine: Architecture, invariant: bool) -> tuple[Variant, ...]:
    """For every step those that compute each of its tokens once. ``context``: the most positions of a sequence."""
    some = tile(shape, _SOME_ROWS, machine)
    if invariant:
        kind = _Kind(shape, machine, 1, parts(context), "serial", "parts")
        return (*_decoding(kind, some), *_mixed(kind, some, ((some, 16), (some, 64), (some, None))))
    few = tile(shape, min(max(power_of_two(shape.group), _LEAST_ROWS), _SOME_ROWS), machine)
    many = tile(shape, _MANY_ROWS, machine)
    kind = _Kind(shape, machine, few.tokens, -(-context // few.block), "none", "splits")
    tiles = ((some, 16), (some, 64), (many, 128), (many, 256), (many, 512), (many, None))
    return (*_decoding(kind, few), *_mixed(kind, few, tiles))


def _decoding(kind: _Kind, few: Tile) -> Iterator[Variant]:
    """Steps of short sequences alone: the fewer there are, the more programs share a context."""
    short, below, most = when("Q", 0, kind.short), 0, 1
    while (programs := kind.programs(few, most)) > 1:
        yield kind.variant("few", few, "sequence", (short, when("S", below, most)), programs, most * kind.short)
        below, most = most + 1, most * 2
    yield kind.variant("few", few, "sequence", (short, when("S", below)), 1, 0)


def _mixed(kind: _Kind, few: Tile, tiles: tuple[tuple[Tile, int | None], ...]) -> Iterator[Variant]:
    """``tiles``: for steps of at most so many tokens."""
    longer, below = when("Q", kind.short + 1), 0
    for most in (16, 64, 256, None):
        programs = 1
        if most:
            wanted = min(_FEW_PROGRAMS // (most * kind.shape.kv_heads * few.folds), _FEW_SPLITS)
            programs = splits(1, kind.pieces, wanted)
        bounded = (longer, when("S", below, most))
        yield kind.variant("few", few, "sequence", bounded, programs, (most or 0) * kind.short)
        below = (most or 0) + 1
    below = 0
    for one, most in tiles:
        programs = kind.programs(one, -(-most // one.tokens)) if most else 1
        name = "some" if one.rows <= _SOME_ROWS else "many"
        yield kind.variant(name, one, "tokens", (longer, when("T", below, most)), programs, most or 0)
        below = (most or 0) + 1
