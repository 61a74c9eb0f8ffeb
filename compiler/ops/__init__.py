"""The op set. Importing this package registers every op; ``OPS`` finds them by name."""

from . import attention, linear, loop, norm, pointwise, rope, sampling, shape
from .registry import OPS

__all__ = ["OPS", "attention", "linear", "loop", "norm", "pointwise", "rope", "sampling", "shape"]
