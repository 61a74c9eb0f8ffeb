"""What the tests' process asks of the one that executes the adapter's IR."""

from dataclasses import dataclass
from enum import Enum

import numpy as np


class Guard(Enum):
    """On which side of the memory lies the page that cannot be touched."""

    AFTER = "after"
    BEFORE = "before"


@dataclass(frozen=True)
class AdaptedKernel:
    ir: str
    """Linalg in MLIR's generic form."""
    name: str
    items: list[int]
    """Bytes of an item of each parameter."""
    operands: list[tuple[str, int]]
    """Memory and offset in bytes of each."""
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Request:
    kernels: list[AdaptedKernel]
    memory: dict[str, np.ndarray]
    guard: Guard
    backwards: bool
    """Programs of a kernel run from the last to the first."""
    slack: int = 0
    """Bytes behind each memory that may be read."""
