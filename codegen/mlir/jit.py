"""Running a Linalg module on the CPU: bufferised, as plain loops, through MLIR's execution engine.

Meant for checking, not for speed: nothing is tiled, and matrix products are three loops.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.passmanager import PassManager
from torch_mlir.runtime import get_ranked_memref_descriptor, make_nd_memref_descriptor, ranked_memref_to_numpy

PIPELINE = (
    "func.func(refback-generalize-tensor-pad)",
    "func.func(refback-generalize-tensor-concat)",
    "one-shot-bufferize{bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map}",
    "buffer-deallocation-pipeline",
    "canonicalize",
    "func.func(refback-munge-memref-copy)",
    "func.func(convert-linalg-to-loops)",
    "func.func(llvm-request-c-wrappers)",
    "convert-bufferization-to-memref",
    "convert-scf-to-cf",
    "memref-expand",
    "expand-strided-metadata",
    "lower-affine",
    "func.func(refback-expand-ops-for-llvm)",
    "convert-math-to-llvm",
    "convert-math-to-libm",
    "arith-expand",
    "convert-arith-to-llvm",
    "finalize-memref-to-llvm",
    "convert-func-to-llvm",
    "convert-cf-to-llvm",
    "convert-index-to-llvm",
    "reconcile-unrealized-casts",
)


class JitFunction:
    """One function of a module, compiled for this process."""

    def __init__(self, text: str, name: str, results: Sequence[tuple[int, np.dtype]]) -> None:
        """``results``: rank and dtype of each."""
        with ir.Context() as context:
            torch_dialect.register_dialect(context)
            module = ir.Module.parse(text)
            PassManager.parse(f"builtin.module({','.join(PIPELINE)})").run(module.operation)
            self.engine = ExecutionEngine(module, opt_level=0)
        self.name = name
        descriptors = [make_nd_memref_descriptor(rank, np.ctypeslib.as_ctypes_type(dtype)) for rank, dtype in results]
        fields: list[Any] = [(f"result_{i}", kind) for i, kind in enumerate(descriptors)]
        self.results = type("Results", (ctypes.Structure,), {"_fields_": fields})
        self.free = ctypes.CDLL(None).free
        self.free.argtypes = [ctypes.c_void_p]

    def __call__(self, *arguments: np.ndarray) -> list[np.ndarray]:
        """Arguments have rank 1 at least and lie row by row; they are not changed."""
        given = [get_ranked_memref_descriptor(a) for a in arguments]
        made = self.results()
        pointers = [ctypes.pointer(ctypes.pointer(d)) for d in (made, *given)]
        self.engine.invoke(self.name, *pointers)
        values, owned = [], set()
        for field, *_ in made._fields_:
            descriptor = getattr(made, field)
            values.append(ranked_memref_to_numpy([descriptor]).copy())
            owned.add(descriptor.allocated)
        for address in owned - {a.ctypes.data for a in arguments}:
            self.free(address)
        return values
