"""Plans bound to memory: every address is settled when the engine loads, and a step is one C call per function.

Addresses are offsets from a few base pointers: an arena per symbol, the weights, one per state, one per input.
"""

import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from .artifact.dtypes import ITEM_BYTES, numpy_dtype
from .artifact.errors import ArtifactError
from .artifact.schema import FunctionPlan, InputEntry, Integer, Operand, Plan, Pointer, Real, Scalar
from .library import INTEGER, LAUNCH, OPERAND, POINTER, REAL, SYMBOL, Kernels, Pool
from .memory import allocate

SYMBOLS = ("T", "S", "R", "B")
"""In the order of the symbol array that kernels are given."""
FIXED = "fixed"


@dataclass(frozen=True)
class Capacities:
    """The largest sizes a step may have; arenas are laid out for them."""

    tokens: int
    sequences: int
    rows: int
    table_columns: int

    def of(self, symbol: str) -> int:
        sizes = (self.tokens, self.sequences, self.rows, self.table_columns)
        if symbol == "S+1":  # of query_starts
            return self.sequences + 1
        return 1 if symbol == FIXED else sizes[SYMBOLS.index(symbol)]


@dataclass(frozen=True)
class Function:
    """One executable list of launches."""

    plan: FunctionPlan
    launches: np.ndarray
    operands: np.ndarray
    """Kept alive: launches point into it."""
    inputs: Mapping[str, InputEntry] = field(default_factory=dict)


class BoundPlan:
    """All functions of a plan over one set of arenas, weights and states.

    Not safe for concurrent use: a plan has one set of buffers. The engine holds a lock.
    """

    def __init__(
        self,
        plan: Plan,
        kernels: Kernels,
        pool: Pool,
        capacities: Capacities,
        weight_offsets: Mapping[str, int],
        states: Collection[str],
    ) -> None:
        self._pool = pool
        self._capacities = capacities
        self._weight_offsets = weight_offsets
        self._states = states
        self._buffers = {buffer.name: buffer for buffer in plan.buffers}
        self._arenas = {name: allocate(unit * capacities.of(name)) for name, unit in plan.arenas.items()}
        self._indices: dict[tuple[str, ...], int] = {}
        self._symbols = np.zeros(len(SYMBOLS), np.int64)
        self._kept: dict[int, np.ndarray] = {}
        for name in self._arenas:
            self._index("arena", name)
        self.functions = {function.name: self._bind(function, kernels) for function in plan.functions}
        self._bases = np.zeros(len(self._indices), np.uint64)
        for name, arena in self._arenas.items():
            self._set("arena", name, values=arena)

    @property
    def arenas(self) -> Mapping[str, np.ndarray]:
        """The memory of values, by the symbol that it grows with."""
        return self._arenas

    def set_weights(self, memory: np.ndarray) -> None:
        """``memory``: the bytes of the weight file, or a copy of them with the same offsets."""
        self._set("weights", values=memory)

    def set_state(self, name: str, memory: np.ndarray) -> None:
        self._set("state", name, values=memory)

    def set_sizes(self, tokens: int, sequences: int, rows: int, table_columns: int) -> None:
        """The symbols' values for the calls that follow."""
        self._symbols[:] = (tokens, sequences, rows, table_columns)

    def converted(self, function: str, name: str, values: np.ndarray) -> np.ndarray:
        """``values`` as the input takes them. Records (the rows of ``sample``) are taken as they are."""
        if values.dtype.names is not None:
            return np.ascontiguousarray(values)
        return np.ascontiguousarray(values, numpy_dtype(self.functions[function].inputs[name].dtype))

    def give(self, function: str, name: str, values: np.ndarray) -> None:
        """Point an input at ``values``, which are ``converted``, for the calls that follow; they are kept alive."""
        self._set("input", function, name, values=values)

    def run(self, function: str, seconds: np.ndarray | None = None) -> None:
        self._pool.run(self.functions[function].launches, self._bases, self._symbols, seconds)

    def output(self, function: str, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """A view of a result's buffer, valid until the next run."""
        buffer = self._buffers[self.functions[function].plan.outputs[name]]
        start = buffer.offset * self._capacities.of(buffer.scale or FIXED)
        count = math.prod(shape)
        memory = self._arenas[buffer.scale or FIXED][start : start + count * ITEM_BYTES[dtype]]
        return memory.view(numpy_dtype(dtype)).reshape(shape)

    def _index(self, *key: str) -> int:
        return self._indices.setdefault(key, len(self._indices))

    def _set(self, *key: str, values: np.ndarray) -> None:
        index = self._indices.get(key)
        if index is not None:
            self._bases[index] = values.ctypes.data
            self._kept[index] = values

    def _bind(self, function: FunctionPlan, kernels: Kernels) -> Function:
        operands = np.zeros(sum(len(launch.operands) for launch in function.launches), OPERAND)
        launches = np.zeros(len(function.launches), LAUNCH)
        position = 0
        for i, launch in enumerate(function.launches):
            address = operands.ctypes.data + position * OPERAND.itemsize
            launches[i] = (kernels.address(launch.kernel), address, len(launch.operands), 0)
            for operand in launch.operands:
                operands[position] = self._operand(function, operand, launch.origin)
                position += 1
        return Function(function, launches, operands, {entry.name: entry for entry in function.inputs})

    def _operand(self, function: FunctionPlan, operand: Operand, origin: str) -> tuple[int, int, int]:
        match operand:
            case Scalar(name=symbol):
                return SYMBOL, SYMBOLS.index(symbol), 0
            case Integer(value=integer):
                return INTEGER, 0, integer
            case Real(value=real):
                return REAL, 0, struct.unpack("<q", struct.pack("<d", real))[0]
            case Pointer(kind="buffer", name=name) if name in self._buffers:
                buffer = self._buffers[name]
                arena = buffer.scale or FIXED
                return POINTER, self._index("arena", arena), buffer.offset * self._capacities.of(arena)
            case Pointer(kind="weight", name=name) if name in self._weight_offsets:
                return POINTER, self._index("weights"), self._weight_offsets[name]
            case Pointer(kind="state", name=name) if name in self._states:
                return POINTER, self._index("state", name), 0
            case Pointer(kind="input", name=name) if any(entry.name == name for entry in function.inputs):
                return POINTER, self._index("input", function.name, name), 0
            case Pointer(kind=kind, name=name):
                raise ArtifactError(
                    f"launch {origin} of {function.name} refers to the {kind} {name}, which the engine lacks; "
                    "compile the engine again"
                )
