"""Anonymous memory in huge pages where the system gives them."""

import ctypes
import mmap
from contextlib import suppress

import numpy as np

from .artifact.errors import OptionError


def allocate(size: int) -> np.ndarray:
    """``size`` zero bytes (uint8), page-aligned, taken from the system as they are touched. Raises OptionError."""
    try:
        region = mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as problem:
        raise OptionError(
            f"the engine needs {size / 1e9:.1f} GB more memory, which this system refuses; "
            "load it with smaller max_tokens, max_rows, max_sequences or kv_tokens"
        ) from problem
    # Kernels built without transparent huge pages refuse the advice.
    with suppress(OSError):
        region.madvise(mmap.MADV_HUGEPAGE)
    values: np.ndarray = np.frombuffer(region, np.uint8, count=size)
    return values


def return_freed() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def available_bytes() -> int:
    """Memory the system can give without swapping (MemAvailable)."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 30
