"""What a GPU of each compute capability offers one kernel, from the vendor's documents: the limits that a build checks.

Sources: CUDA C++ Programming Guide, "Features and Technical Specifications"; the tuning guides of each architecture.
"""

from dataclasses import dataclass

from ...runtime.artifact.errors import OptionError


@dataclass(frozen=True)
class Architecture:
    name: str
    """As ptxas names it: ``sm_90``."""
    capability: int
    """Triton's number for it: 90."""
    shared_limit: int
    """Bytes of shared memory that one program may have."""
    multiprocessors: int
    """Of the usual card: A100, L40S, H200. Grids are sized for it; a plan runs on any."""

    @property
    def wgmma(self) -> bool:
        """Whether tiles of 64 rows and more are multiplied by warp groups."""
        return self.capability == 90


ARCHITECTURES = {
    "sm_80": Architecture("sm_80", 80, 166_912, 108),
    "sm_89": Architecture("sm_89", 89, 101_376, 142),
    "sm_90": Architecture("sm_90", 90, 232_448, 132),
}

MOST_REGISTERS = 255
"""That one thread can name."""


def architecture(name: str) -> Architecture:
    """The architecture of this name. Raises OptionError."""
    if name not in ARCHITECTURES:
        raise OptionError(f"--target cuda requires one of {', '.join(ARCHITECTURES)}, got {name!r}; try cuda:sm_90")
    return ARCHITECTURES[name]
