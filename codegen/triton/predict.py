"""How long a matrix product takes with given tiles, predicted from data sheets: good for comparing tiles, not for time.

The slowest of three streams counts: bytes from device memory, bytes from the cache into shared memory or registers, and
operations. What a stream can reach is bounded by the card, by how many multiprocessors have a program, and by Little's
law: bytes under way divided by the time that each takes.
"""

from dataclasses import dataclass

from .architecture import Architecture
from .cards import Card, card
from .kernel import Config

_ITEM = {"f32": 4, "bf16": 2, "f16": 2}

MANY = 2048
"""Rows to predict for where they are not bounded."""

_LATENCY, _CACHED = 0.8e-6, 0.4e-6
"""Seconds from asking for bytes to having them, under load: from device memory, and from the second-level cache.
Assumed, as is each number below.
"""

_LAUNCH = 1.5e-6
"""Seconds that one more kernel in a graph costs."""

_TURN = 0.03e-6
"""Seconds that a turn of a program's loop takes beside its loads and operations."""

_REACHED = {"memory": 0.92, "cache": 0.75, "wgmma": 0.9, "mma": 0.85, "plain": 0.6}
"""Of the card's rates, what kernels reach at best."""

_MMA_ON_WGMMA = 0.62
"""Rate of mma.sync on sm_90, of its warp groups' rate."""

_LOADED = 60e9
"""Bytes a second that one multiprocessor can load: about half of its 64 a clock."""

_CLOCK_BYTES = 128
"""From shared memory, of one multiprocessor in one clock."""

_REGISTERS = 65_536
"""Of a multiprocessor."""


@dataclass(frozen=True)
class Problem:
    """A product y[M, N] = x[M, K] @ weight.T whose tiles are wanted."""

    dtype: str
    """Of both operands."""
    columns: int
    """Of the result: half as many as the weight has rows, where it is gated."""
    inner: int
    """K."""
    gated: bool = False
    rows: int | None = None
    """The most that x has; None where that has no bound."""

    @property
    def halves(self) -> int:
        """Tiles of weights for one tile of the result."""
        return 2 if self.gated else 1

    @property
    def item(self) -> int:
        return _ITEM[self.dtype]


def predict(problem: Problem, config: Config, machine: Architecture) -> float:
    """Seconds of one product, its second kernel included."""
    tiles, limits = config.tiles, card(machine)
    rows = problem.rows or MANY
    block_m, block_n, block_k, split = (tiles[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K", "SPLIT"))
    started = programs(problem, config)
    busiest = -(-started // machine.multiprocessors)
    together = min(resident(problem, config, machine), busiest)
    piece = -(-problem.inner // split)
    turns = -(-piece // block_k)

    weights = problem.halves * problem.columns * problem.inner * problem.item
    moved = weights + rows * (problem.inner + problem.columns) * problem.item
    loaded = piece * problem.item * (problem.halves * block_n + min(block_m, rows))
    # Turns whose loads are under way: without a pipeline none, then one, as its results are used up.
    ahead = 0.5 if block_m == 1 else config.stages - 1
    known = min(moved / (loaded * started), 1.0)
    latency = known * _LATENCY + (1 - known) * _CACHED
    arriving = min(_LOADED, together * loaded / turns * min(ahead, turns) / latency)
    operations = turns * 2 * block_m * block_n * block_k * problem.halves
    body = max(
        moved / (limits.memory * _REACHED["memory"]),
        started * loaded / (limits.cache * _REACHED["cache"]),
        busiest * loaded / arriving,
        busiest * operations / _operation_rate(problem, config, machine, limits) * machine.multiprocessors,
    )
    waiting = (_LATENCY + turns * _TURN) * -(-busiest // together)
    sums = split * problem.halves * rows * problem.columns * 4 * 2 / limits.cache
    return _LAUNCH + waiting + body + (_LAUNCH + _LATENCY + sums if split > 1 and not tiles["WALK"] else 0.0)


def programs(problem: Problem, config: Config) -> int:
    """Of the first kernel."""
    tiles = config.tiles
    blocks = -(-(problem.rows or MANY) // tiles["BLOCK_M"]) * -(-problem.columns // tiles["BLOCK_N"])
    return blocks * (1 if tiles["WALK"] else tiles["SPLIT"])


def resident(problem: Problem, config: Config, machine: Architecture) -> int:
    """Programs that one multiprocessor holds at a time."""
    limits, threads = card(machine), 32 * config.warps
    most = (
        limits.shared // (shared_bytes(problem, config) + 1024),
        _REGISTERS // (threads * min(registers(problem, config) + 48, 255)),
        limits.threads // threads,
        limits.programs,
    )
    return max(min(most), 1)


def registers(problem: Problem, config: Config) -> int:
    """Of one thread, for its sums, and for what it loads where that does not go by shared memory."""
    tiles, threads = config.tiles, 32 * config.warps
    elements = problem.halves * tiles["BLOCK_N"] * (tiles["BLOCK_K"] if tiles["BLOCK_M"] == 1 else tiles["BLOCK_M"])
    if tiles["BLOCK_M"] == 1:
        return elements * problem.item // (4 * threads) + elements // (vector(problem) * threads)
    return elements * (1 + tiles["WALK"]) // threads


def vector(problem: Problem) -> int:
    """Elements in a load of 16 bytes."""
    return 16 // problem.item


def shared_bytes(problem: Problem, config: Config) -> int:
    """Shared memory of one program: the tiles of every pipeline stage."""
    tiles = config.tiles
    if tiles["BLOCK_M"] == 1:
        return 4 * tiles["BLOCK_N"] * config.warps
    rows = problem.halves * tiles["BLOCK_N"] + tiles["BLOCK_M"]
    return config.stages * rows * tiles["BLOCK_K"] * problem.item


def uses_wgmma(problem: Problem, config: Config, machine: Architecture) -> bool:
    """Whether warp groups multiply: four warps and more, 64 rows and more of the left operand, 16-bit numbers."""
    left = config.tiles["BLOCK_N" if config.tiles["SWAP"] else "BLOCK_M"]
    return machine.wgmma and problem.dtype != "f32" and left >= 64 and config.warps % 4 == 0


def _operation_rate(problem: Problem, config: Config, machine: Architecture, limits: Card) -> float:
    tiles = config.tiles
    if tiles["BLOCK_M"] == 1 or problem.dtype == "f32":
        return limits.plain * _REACHED["plain"]
    if uses_wgmma(problem, config, machine):
        height, width, reached = 64, min(tiles["BLOCK_M" if tiles["SWAP"] else "BLOCK_N"], 256), _REACHED["wgmma"]
    else:  # each warp reads what its part of the tile needs
        height = width = int((tiles["BLOCK_M"] * tiles["BLOCK_N"] / config.warps) ** 0.5)
        reached = _REACHED["mma"] * (_MMA_ON_WGMMA if machine.wgmma else 1.0)
    # Operands come from shared memory, which only partly overlaps with multiplying them.
    reading = (height + width) * 16 * 2 / _CLOCK_BYTES
    computing = 2 * height * width * 16 / limits.clock_operations
    return limits.matrix * reached * computing / (computing + reading / 2)
