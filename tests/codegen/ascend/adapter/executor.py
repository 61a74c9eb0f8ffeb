"""The adapter's IR on the CPU: lowered further by torch-mlir's passes, compiled by LLVM, and called program by program.

Bufferisation, loops and code are upstream MLIR's, so this shows what the IR computes, not what an NPU does with it.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch_mlir.dialects.torch  # noqa: F401  # which registers the passes
from torch_mlir import ir
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.passmanager import PassManager

PASSES = (
    "func.func(llvm-request-c-wrappers)",
    "func.func(convert-elementwise-to-linalg)",
    "one-shot-bufferize{allow-return-allocs-from-loops=1 copy-before-write=0}",
    "canonicalize",
    "func.func(refback-munge-memref-copy,convert-linalg-to-loops)",
    "convert-scf-to-cf",
    "memref-expand",
    "expand-strided-metadata",
    "lower-affine",
    "func.func(convert-math-to-llvm)",
    "convert-math-to-libm",
    "arith-expand{include-bf16=1}",
    "convert-arith-to-llvm",
    "convert-vector-to-llvm",
    "finalize-memref-to-llvm{use-generic-functions=1}",
    "convert-func-to-llvm",
    "convert-cf-to-llvm",
    "convert-index-to-llvm",
    "reconcile-unrealized-casts",
)

POISON = 0xFF
"""What a program finds in memory of its own that it has not written: nan as a float, -1 as an integer."""

_ARENA_BYTES = 256 << 20
_ALIGNMENT = 64

Call = Callable[..., None]


class Arena:
    """Memory of one program at a time, poisoned before each."""

    def __init__(self) -> None:
        self._memory = np.full(_ARENA_BYTES, POISON, np.uint8)
        self._start = -(-self._memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self._used = 0

    def allocate(self, size: int) -> int:
        address = self._start + self._used
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        if self._used > _ARENA_BYTES - _ALIGNMENT:
            raise MemoryError(f"a program allocates more than {_ARENA_BYTES} bytes")
        return address

    def clear(self) -> None:
        ctypes.memset(self._start, POISON, self._used)
        self._used = 0


ARENA = Arena()

# MLIR's generic allocation functions; what is freed comes back when the program ends.
_ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(ARENA.allocate)
_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda address: None)


def descriptor(address: int, items: int) -> ctypes.Array:
    """MLIR's description of a memref of one axis: allocated, aligned, offset, sizes, strides."""
    return (ctypes.c_int64 * 5)(address, address, 0, items, 1)


@cache
def compiled(text: str, name: str) -> tuple[ExecutionEngine, Call]:
    """The kernel as a function of an array of its arguments' addresses, and what keeps it alive."""
    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        module = ir.Module.parse(text)
        _erase_annotations(module)
        PassManager.parse(f"builtin.module({','.join(PASSES)})").run(module.operation)
        engine = ExecutionEngine(module, opt_level=0)
    engine.raw_register_runtime("_mlir_memref_to_llvm_alloc", ctypes.cast(_ALLOCATE, ctypes.c_void_p))
    engine.raw_register_runtime("_mlir_memref_to_llvm_free", ctypes.cast(_FREE, ctypes.c_void_p))
    address = engine.raw_lookup(f"_mlir_ciface_{name}")
    if not address:
        raise RuntimeError(f"the compiled IR of kernel {name} lacks that function, or needs one that is nowhere")
    return engine, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def _erase_annotations(module: ir.Module) -> None:
    """Remove the dialect that only tells Ascend's compiler something about a value."""
    marks: list[ir.Operation] = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        if operation.name == "annotation.mark":
            marks.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for mark in marks:
        mark.erase()


def run(
    text: str, name: str, operands: Sequence[tuple[int, int]], grid: tuple[int, int, int], backwards: bool = False
) -> None:
    """Run all programs of a kernel, one after the other. ``operands``: the address and number of items of each."""
    unused = ctypes.create_string_buffer(64)
    own = [descriptor(ctypes.addressof(unused), 64), descriptor(ctypes.addressof(unused), 64)]
    given = [*own, *(descriptor(address, items) for address, items in operands)]
    pointers = (ctypes.c_void_p * len(given))(*map(ctypes.addressof, given))
    numbers = (ctypes.c_int32 * 6)(*grid)
    starts = [(array, 8 * i) for array in [pointers] for i in range(len(given))] + [(numbers, 4 * i) for i in range(6)]
    arguments = (ctypes.c_void_p * len(starts))(*(ctypes.addressof(array) + start for array, start in starts))
    _, function = compiled(text, name)
    places = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]
    for place in reversed(places) if backwards else places:
        ARENA.clear()
        numbers[3:] = place
        function(ctypes.addressof(arguments))
