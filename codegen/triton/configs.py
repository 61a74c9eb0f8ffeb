"""Which tiles a matrix product gets: the candidates for a range of rows, and the choice among them.

A choice that was measured on a device (``tuned.py``) comes first; without one, the candidate that is predicted to be
the fastest (``predict.py``).

Tiles of a product y[M, N] = x[M, K] @ weight[N, K].T:

- ``BLOCK_M``, ``BLOCK_N``, ``BLOCK_K``: rows and columns of the result that one program makes, and how much of K one
  turn of its loop takes. With BLOCK_M = 1 it multiplies and adds without matrix instructions: one row would leave 15 of
  their 16 rows idle, and a program may then have so few columns that K need not be split to have programs enough.
- ``SPLIT``: pieces of K, each summed by itself. With ``WALK`` one program walks all pieces of its tile; without, each
  has a program of its own, and a second kernel adds them.
- ``SWAP``: 1 where weights are the left operand of the matrix instruction. Warp groups multiply 64 rows of the left
  operand and as few as 8 columns of the right one, so few tokens are best on the right.
- ``GROUP``: blocks of rows that programs walk together, column by column, while their weights are in the cache.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from typing import NamedTuple

from .architecture import Architecture
from .kernel import Config, power_of_two
from .predict import MANY, Problem, predict, programs, registers, shared_bytes, uses_wgmma, vector
from .tuned import measured

BOUNDS: tuple[int | None, ...] = (1, 16, 64, 128, 512, None)
"""Most rows of each variant of a product: one sequence, some, many; then a short chunk of a prompt, and long ones."""

_SUMS, _SUMS_OF_WARPS = 128, 64
"""Most float32 sums of one thread, where warp groups read their operands from shared memory, and where each warp first
loads its own to registers: more were spilled.
"""

_PARTIAL = 32 * 2**20
"""Most bytes of pieces' sums: they should be read from the cache that they were written to."""

_LOADS = 8
"""Most loads of 16 bytes that a thread has under way in registers, where one row is multiplied."""

_NEARLY = 1.03
"""Of the best prediction's seconds: what predictions cannot tell apart, and what is not worth another kernel."""

_LEAST_TURNS = 2
"""Of the loop over a piece of K: what fewer take is mostly latency."""


class Space(NamedTuple):
    """Tile sizes to combine, for all products of some number of rows."""

    block_m: tuple[int, ...]
    block_n: tuple[int, ...]
    block_k: tuple[int, ...]
    stages: tuple[int, ...]
    split: tuple[int, ...] = (1,)
    group: int = 1


_HALF: Mapping[int | None, Space] = {
    1: Space((16,), (16, 32, 64), (64, 128, 256), (3, 4, 6), (1, 2, 4, 8)),
    16: Space((16,), (16, 32, 64, 128), (64, 128, 256), (3, 4, 6), (1, 2, 4, 8)),
    64: Space((32, 64), (32, 64, 128), (64, 128), (3, 4, 5), (1, 2, 4, 8)),
    128: Space((64, 128), (64, 128), (64, 128), (3, 4, 5), (1, 2, 4), group=8),
    512: Space((64, 128), (64, 128, 256), (32, 64), (3, 4), (1, 2, 4), group=8),
    None: Space((64, 128), (64, 128, 256), (32, 64), (3, 4), group=8),
}
"""16-bit numbers."""

_FLOAT: Mapping[int | None, Space] = {
    1: Space((16,), (16, 32), (32,), (3, 4), (1, 2, 4)),
    16: Space((16,), (16, 32), (32, 64), (3, 4), (1, 2, 4)),
    64: Space((32, 64), (32, 64), (16, 32), (3,), (1, 2)),
    128: Space((64,), (32, 64), (16, 32), (3,), group=8),
    512: Space((64,), (64,), (16, 32), (3,), group=8),
    None: Space((64,), (64,), (16, 32), (3,), group=8),
}
"""float32: multiplied and added in registers, which limits the tiles."""


class Variant(NamedTuple):
    """A configuration, and for how many rows it is."""

    least: int
    most: int | None
    config: Config


def candidates(problem: Problem, machine: Architecture) -> tuple[Config, ...]:
    """Configurations that fit the architecture: for a tuner to measure, or the predictor to choose from.

    ``problem.rows`` is one of ``BOUNDS``. There is at least one; content and order depend on the arguments alone.
    """
    space = (_FLOAT if problem.dtype == "f32" else _HALF)[problem.rows]
    found = [*(_plain(problem) if problem.rows == 1 else ()), *_tiled(problem, space, machine)]
    return tuple(c for c in found if shared_bytes(problem, c) <= machine.shared_limit)


@cache
def choose(problem: Problem, machine: Architecture) -> Config:
    """The measured choice for this problem, else the candidate that is predicted to be the fastest.

    Of those that are nearly so, the one with the fewest programs, which read least more than once. One row is predicted
    without matrix instructions only: such a program starts with its first load, needs no barrier and no shared memory,
    and more of them are at work on a multiprocessor, none of which predictions see.
    """
    known = measured(machine.name).get(problem)
    if known is not None:
        return known
    fitting = [c for c in candidates(problem, machine) if problem.rows != 1 or c.tiles["BLOCK_M"] == 1]
    seconds = [(predict(problem, config, machine), config) for config in fitting]
    best = min(time for time, _ in seconds)
    return min(
        ((time, config) for time, config in seconds if time <= _NEARLY * best),
        key=lambda pair: (programs(problem, pair[1]), pair[0]),
    )[1]


def variants(problem: Problem, machine: Architecture) -> tuple[Variant, ...]:
    """Configurations for every number of rows, in ascending order. ``problem.rows`` is ignored.

    A range whose neighbour below has a configuration that is nearly as fast takes that one: small products, which are
    all latency, then need two kernels or three, not one for each range.
    """
    found: list[Variant] = []
    for most in BOUNDS:
        ranged = replace(problem, rows=most)
        config = choose(ranged, machine)
        if found and _serves(found[-1].config, config, ranged, machine):
            found[-1] = found[-1]._replace(most=most)
        else:
            found.append(Variant((found[-1].most or 0) + 1 if found else 1, most, config))
    return tuple(found)


def _serves(below: Config, best: Config, problem: Problem, machine: Architecture) -> bool:
    """Whether the configuration of fewer rows does for these as well."""
    if below == best:
        return True
    if below.tiles["BLOCK_M"] == 1 or below.tiles["SPLIT"] > 1 or problem in measured(machine.name):
        return False
    return predict(problem, below, machine) <= _NEARLY * predict(problem, best, machine)


_ALONE = {"WALK": 0, "SWAP": 0, "GROUP": 1}


def _plain(problem: Problem) -> Iterator[Config]:
    """One row without matrix instructions: each warp loads 512 bytes of a row of weights at a time."""
    for block_n, warps, reach in product((2, 4, 8, 16), (1, 2, 4, 8), (1, 2)):
        block_k = 32 * vector(problem) * warps * reach
        wide = block_k > max(power_of_two(problem.inner), 32 * vector(problem))
        if not wide and block_n * reach * problem.halves <= _LOADS:
            yield Config({"BLOCK_M": 1, "BLOCK_N": block_n, "BLOCK_K": block_k, "SPLIT": 1} | _ALONE, warps, stages=1)


def _tiled(problem: Problem, space: Space, machine: Architecture) -> Iterator[Config]:
    """Tiles for matrix instructions, cut down to products that are smaller."""
    columns, inner = (max(power_of_two(size), 16) for size in (problem.columns, problem.inner))
    sizes = {(min(n, columns), min(k, inner)): None for n, k in product(space.block_n, space.block_k)}
    for (block_n, block_k), block_m, stages, split in product(sizes, space.block_m, space.stages, space.split):
        sums = split * problem.halves * (problem.rows or MANY) * problem.columns * 4
        if split > 1 and (problem.inner % (split * block_k * _LEAST_TURNS) or sums > _PARTIAL):
            continue
        tiles = {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k, "SPLIT": split}
        made = tiled(problem, tiles | {"WALK": 0, "SWAP": int(block_m < 64), "GROUP": space.group}, stages)
        if registers(problem, made) <= (_SUMS if uses_wgmma(problem, made, machine) else _SUMS_OF_WARPS):
            yield made


def tiled(problem: Problem, tiles: Mapping[str, int], stages: int) -> Config:
    """The configuration for these tiles, with as many warps as their sums take without spills."""
    elements = problem.halves * tiles["BLOCK_M"] * tiles["BLOCK_N"] * (1 + tiles["WALK"])
    if elements <= 16 * 32:  # of one or two instructions: more warps would only repeat them
        return Config(tiles, elements // (16 * 16), stages)
    return Config(tiles, 8 if elements >= (128 * 128 if problem.item == 2 else 64 * 128) else 4, stages)
