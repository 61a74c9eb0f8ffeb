"""The op set: every op registered once, found by name."""

from collections.abc import Callable
from typing import Any

from ..ir.op import Op, Traits

OPS: dict[str, Op] = {}

EXACT: dict[str, float] = {"f32": 0.0, "bf16": 0.0, "f16": 0.0, "i32": 0.0, "i64": 0.0, "bool": 0.0}
ROUNDED: dict[str, float] = {"f32": 1e-5, "bf16": 2**-7, "f16": 2**-10}
"""A kernel may accumulate in another order: a few units in the last place."""


def op(
    name: str, traits: Traits | None = None, tolerance: dict[str, float] | None = None
) -> Callable[[Callable[..., Any]], Op]:
    """Register an op whose meaning is the decorated eager function."""

    def register(reference: Callable[..., Any]) -> Op:
        if name in OPS:
            raise ValueError(f"op {name!r} is registered twice")
        OPS[name] = Op(name, reference, traits or Traits(), tolerance or ROUNDED, doc=reference.__doc__ or "")
        return OPS[name]

    return register
