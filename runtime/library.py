"""A kernel library, bound through its C interface (``xllmc/abi.h`` and ``xllmc/pool.h``)."""

import ctypes
from pathlib import Path

import numpy as np

from .artifact.errors import ArtifactError, OptionError
from .artifact.schema import ABI_VERSION, KernelLibrary

OPERAND = np.dtype([("kind", np.int32), ("base", np.int32), ("value", np.int64)])
LAUNCH = np.dtype([("kernel", np.uint64), ("operands", np.uint64), ("operand_count", np.int32), ("reserved", np.int32)])
POINTER, SYMBOL, INTEGER, REAL = range(4)
"""enum xllmc_operand_kind."""
_RUN_FAULTS = {1: "a launch has too many operands", 2: "the engine is already running a step from another thread"}


def closed() -> OptionError:
    """What using an engine after ``close`` ends in."""
    return OptionError("the engine is closed; load it again")


class Kernels:
    """The loaded library. Raises ArtifactError if it cannot be loaded or is not what the manifest says."""

    def __init__(self, root: Path, library: KernelLibrary) -> None:
        self.path = root / library.path
        self.isa = library.isa
        try:
            self._library = ctypes.CDLL(str(self.path.resolve()))
        except OSError as problem:
            raise ArtifactError(f"{self.path} cannot be loaded ({problem}); compile the engine again") from problem
        self._library.xllmc_isa.restype = ctypes.c_char_p
        self._library.xllmc_pool_create.restype = ctypes.c_void_p
        self._library.xllmc_pool_create.argtypes = [ctypes.c_int32]
        self._library.xllmc_pool_destroy.restype = None
        self._library.xllmc_pool_destroy.argtypes = [ctypes.c_void_p]
        self._run = self._library.xllmc_run
        self._run.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        version, isa = self._library.xllmc_abi_version(), self._library.xllmc_isa().decode()
        if version != ABI_VERSION or isa != library.isa:
            raise ArtifactError(
                f"{self.path} must be a library of ABI {ABI_VERSION} for {library.isa}, "
                f"got ABI {version} for {isa}; compile the engine again"
            )

    def address(self, kernel: str) -> int:
        """The entry point of an exported kernel."""
        try:
            function = getattr(self._library, kernel)
        except AttributeError as problem:
            raise ArtifactError(
                f"{self.path} lacks the kernel {kernel} of the plan; compile the engine again"
            ) from problem
        return ctypes.cast(function, ctypes.c_void_p).value or 0

    def create_pool(self, threads: int) -> "Pool":
        handle = self._library.xllmc_pool_create(threads)
        if not handle:
            raise OptionError(f"threads must be a number of threads this system can start, got {threads}")
        return Pool(self, handle)

    def run(self, pool: int, launches: np.ndarray, bases: np.ndarray, symbols: np.ndarray, seconds: int | None) -> None:
        fault = self._run(pool, launches.ctypes.data, len(launches), bases.ctypes.data, symbols.ctypes.data, seconds)
        if fault:
            raise RuntimeError(_RUN_FAULTS[fault])

    def destroy_pool(self, pool: int) -> None:
        self._library.xllmc_pool_destroy(pool)


class Pool:
    """The threads that run launches; the caller of ``run`` is one of them."""

    def __init__(self, kernels: Kernels, handle: int) -> None:
        self._kernels = kernels
        self._handle: int | None = handle

    @property
    def closed(self) -> bool:
        return self._handle is None

    def run(
        self, launches: np.ndarray, bases: np.ndarray, symbols: np.ndarray, seconds: np.ndarray | None = None
    ) -> None:
        """Run ``launches`` (LAUNCH records) in order. ``seconds`` f64[launches], if given, receives each one's time."""
        if self._handle is None:
            raise closed()
        self._kernels.run(self._handle, launches, bases, symbols, None if seconds is None else seconds.ctypes.data)

    def close(self) -> None:
        """End the threads."""
        if self._handle is not None:
            self._kernels.destroy_pool(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()
