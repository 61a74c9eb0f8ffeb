"""What is asked of the interpreting process."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class InterpretedKernel:
    path: Path
    name: str
    pointers: list[str]
    """Triton's types of the parameters."""
    operands: list[tuple[str, int]]
    """Memory and offset in bytes of each."""
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Request:
    kernels: list[InterpretedKernel]
    memory: dict[str, np.ndarray]
    """Each ends at a page that cannot be touched."""
