"""What writes each op as torch code. Importing this package registers xllmc's own."""

from . import attention, caches, linear, loops, norms, pointwise, rotary, scoring, shapes

__all__ = ["attention", "caches", "linear", "loops", "norms", "pointwise", "rotary", "scoring", "shapes"]
