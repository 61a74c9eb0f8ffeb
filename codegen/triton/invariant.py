"""Tiles of matrix products in batch-invariant mode: an element has the same bits whichever variant computed it.

Every variant cuts K into the same ``SPLIT`` pieces. A piece is one chain of matrix instructions from zero, all of one
shape, in ascending order of K; pieces are added in float32 in ascending order, by the second kernel where each has a
program of its own (few rows), by the program that walks all of them (many rows). The instruction's shape is the same
because its width on wgmma is ``BLOCK_N``, which is fixed, and weights are its right operand everywhere; mma.sync has
one shape for 16-bit numbers, and float32 is multiplied and added element by element, in ascending order too. What is
left to differ is the place of an element in its tile. That an instruction treats all places alike is no vendor's
promise, but every batch-invariant kernel rests on it: a row's place changes with whoever stands before it.
"""

from dataclasses import replace

from .architecture import Architecture
from .configs import Variant, tiled
from .kernel import Config, power_of_two
from .predict import Problem, predict

_FEW = 64
"""Rows up to which pieces have programs of their own: beyond, there are tiles enough."""

_USUAL = 16
"""Rows that the number of pieces is chosen for: decoding, where it matters most."""


def invariant_variants(problem: Problem, machine: Architecture) -> tuple[Variant, ...]:
    """Configurations for every number of rows, in ascending order. ``problem.rows`` is ignored."""
    usual = replace(problem, rows=_USUAL)
    split = min(_splits(problem), key=lambda s: predict(usual, _few(problem, machine, s), machine))
    few = _few(problem, machine, split)
    return Variant(1, _FEW, few), Variant(_FEW + 1, None, _many(problem, machine, split))


def _splits(problem: Problem) -> tuple[int, ...]:
    return tuple(s for s in (1, 2, 4, 8, 16) if s == 1 or problem.inner % (s * _block_k(problem) * 2) == 0)


def _few(problem: Problem, machine: Architecture, split: int) -> Config:
    # 64 rows are the least that warp groups multiply; of 16 more columns fit a program.
    block_m = 64 if machine.wgmma and problem.item == 2 else 16
    return _config(problem, block_m, split, walk=0, group=1, stages=5 if machine.shared_limit > 120_000 else 3)


def _many(problem: Problem, machine: Architecture, split: int) -> Config:
    block_m = 128 if problem.item == 2 else 64
    return _config(
        problem, block_m, split, walk=int(split > 1), group=8, stages=4 if machine.shared_limit > 120_000 else 3
    )


def _config(problem: Problem, block_m: int, split: int, walk: int, group: int, stages: int) -> Config:
    tiles = {"BLOCK_M": block_m, "BLOCK_N": _block_n(problem), "BLOCK_K": _block_k(problem), "SPLIT": split}
    return tiled(problem, tiles | {"WALK": walk, "SWAP": 0, "GROUP": group}, stages)


def _block_n(problem: Problem) -> int:
    return min(64 if problem.item == 2 else 32, max(power_of_two(problem.columns), 16))


def _block_k(problem: Problem) -> int:
    return min(64 if problem.item == 2 else 32, max(power_of_two(problem.inner), 16))
