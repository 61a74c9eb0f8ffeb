"""Which tiles attention gets: rows of queries, positions of a block, and how many programs share one context.

A tile has ``rows`` rows, each one token and one query head, of ``fold`` heads that read the same keys and values.
Blocks of ``block`` positions pass through shared memory in two buffers: while one is multiplied, the next is on its
way. Warp groups, which multiply while the next product begins, have a third one.
"""

from typing import NamedTuple

from ...runtime.artifact.dtypes import ITEM_BYTES
from .architecture import Architecture
from .kernel import Config, power_of_two

FIRST_PART = 128
"""Positions of the first parts in batch-invariant mode."""

PARTS_OF_OCTAVE = 8
"""Parts between a position and its double: parts grow with the context, so that their number does not."""

_BUFFERS = 64 * 1024
"""Most bytes of both buffers: a multiprocessor of sm_90 then holds two or three programs, which wait in turn."""

_FLOATS = 32 * 64
"""Most float32 elements of a tile's queries, which are multiplied in registers."""

_SLACK = 1024
"""Shared memory for all else."""

MOST_SPLITS = 64
"""Of one context."""


class Geometry(NamedTuple):
    """What one call of attention is made of."""

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: str
    trees: bool = False
    """Whether tokens may be nodes of trees."""

    @property
    def group(self) -> int:
        """Query heads that share a head of keys and values."""
        return self.heads // self.kv_heads

    @property
    def padded(self) -> tuple[int, int]:
        """Lengths of key and value blocks; matrix instructions take 16 elements and more."""
        return max(power_of_two(self.key_dim), 16), max(power_of_two(self.value_dim), 16)


class Tile(NamedTuple):
    rows: int
    fold: int
    """Query heads of one token in the tile."""
    folds: int
    """Tiles that one group of heads takes."""
    block: int
    config: Config

    @property
    def tokens(self) -> int:
        return self.rows // self.fold


def tile(shape: Geometry, rows: int, machine: Architecture) -> Tile:
    """The largest tile with at most ``rows`` rows, a power of two from 16 on, that fits the architecture."""
    item = ITEM_BYTES[shape.dtype]
    block = 64 if item == 2 else 32
    while block > 32 and 2 * block * sum(shape.padded) * item > _BUFFERS:
        block //= 2
    while rows > 16 and item == 4 and rows * max(shape.padded) > _FLOATS:
        rows //= 2
    while rows > 16 and shared_bytes(shape, rows, block, machine) > machine.shared_limit:
        rows //= 2
    while block > 16 and shared_bytes(shape, rows, block, machine) > machine.shared_limit:
        block //= 2
    folds = -(-shape.group // rows)
    fold = -(-shape.group // folds)
    config = Config({"ROWS": rows, "BLOCK": block}, warps=_warps(shape, rows, machine), stages=3)
    return Tile(rows, fold, folds, block, config)


def _warps(shape: Geometry, rows: int, machine: Architecture) -> int:
    """Four have registers for so many sums, and without warp groups for operands too; of float32 for both."""
    values = shape.padded[1]
    most = _FLOATS // 2 if shape.dtype == "f32" else 64 * 128 if machine.wgmma else 32 * 128
    return 8 if rows * values > most else 4


def shared_bytes(shape: Geometry, rows: int, block: int, machine: Architecture) -> int:
    """At most, of one program."""
    keys, values = shape.padded
    buffers = 3 if machine.wgmma and rows >= 64 else 2
    # Warps that share rows exchange their weights; what is read of trees changes hands too.
    weights = rows * block if rows < 16 * _warps(shape, rows, machine) else 0
    nodes = rows * block if shape.trees else 0
    return ITEM_BYTES[shape.dtype] * (rows * keys + weights + buffers * block * (keys + values)) + nodes + _SLACK


def splits(programs: int, blocks: int, wanted: int) -> int:
    """Into how many pieces, a power of two, to cut contexts of at most ``blocks`` blocks, so that ``programs`` programs
    become at most as many as are ``wanted``, or stay as they are.
    """
    pieces = min(wanted // programs, MOST_SPLITS, power_of_two(blocks))
    return 1 << max(pieces, 1).bit_length() - 1


def parts(context: int) -> int:
    """How many parts the positions below ``context`` have in batch-invariant mode (``part_begin``)."""
    count = 1
    while part_begin(count) < context:
        count += 1
    return count


def part_begin(part: int) -> int:
    """The first position of a part: multiples of 128 at first, from 2048 on of 256, from 4096 on of 512, and so on."""
    octave = max(part // PARTS_OF_OCTAVE - 1, 0)
    return (part - octave * PARTS_OF_OCTAVE << octave) * FIRST_PART
