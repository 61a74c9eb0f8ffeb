"""Which kernels compute which op: importing this package registers them with the ops."""

from . import attention, copies, loops, matmul, norms, rotary, rows, sampling

__all__ = ["attention", "copies", "loops", "matmul", "norms", "rotary", "rows", "sampling"]
