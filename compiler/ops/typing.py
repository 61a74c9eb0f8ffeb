"""Rules that type and cost functions share."""

from collections.abc import Iterable
from typing import Any

from ..ir.dims import Dim, Size, product
from ..ir.op import Cost
from ..ir.polynomial import Polynomial, Quantity
from ..ir.types import TensorType, TupleType, ValueType


def require(condition: bool, message: str) -> None:
    """Raise TypeError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise TypeError(message)


def broadcast(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The shape that all broadcast to, aligned from the right; TypeError where they do not."""
    out: list[Size] = []
    for axis in range(-max(map(len, shapes)), 0):
        sizes = {s[axis] for s in shapes if len(s) >= -axis} - {1}
        require(len(sizes) <= 1, f"shapes do not broadcast: {', '.join(str(list(map(str, s))) for s in shapes)}")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


EFFORT = {
    "div": 6,
    "sqrt": 8,
    "rsqrt": 12,
    "exp": 14,
    "log": 24,
    "sin": 600,
    "cos": 600,
    "tanh": 32,
    "sigmoid": 22,
    "erf": 36,
    "silu": 24,
    "gelu_erf": 38,
    "gelu_tanh": 28,
    "pow": 12,
    "cast": 3,
    "none": 0,
}
"""Operations that one element takes, where it is not 1: as many as the CPU's kernels execute (``xllmc/math.h``; sine
and cosine go lane by lane)."""


def elements(value: TensorType) -> Polynomial:
    return Polynomial.of(product(value.shape))


def nbytes(value: ValueType) -> Polynomial:
    """Bytes of a tensor or of several; 0 for a state, whose traffic its op states itself."""
    if isinstance(value, TupleType):
        return sum(map(nbytes, value.items), Polynomial())
    return Polynomial.of(value.bytes_of(value.shape)) if isinstance(value, TensorType) else Polynomial()


def rows_of(value: TensorType) -> Polynomial:
    """Rows that threads share: of the last axis, or elements where that follows a symbol."""
    fixed_rows = value.shape and not isinstance(value.shape[-1], Dim)
    return Polynomial.of(product(value.shape[:-1] if fixed_rows else value.shape))


def is_constant(value: object) -> bool:
    """Whether this is the type of a weight or a constant: no size of it follows a symbol."""
    return isinstance(value, TensorType) and not any(isinstance(size, Dim) for size in value.shape)


def traffic(operands: Iterable[Any], result: ValueType, flops: Quantity = 0, tasks: Quantity | None = None) -> Cost:
    """The cost of reading every tensor operand once and writing the result once; tasks: by default the rows of the
    (first) result.
    """
    tensors = [o for o in operands if isinstance(o, TensorType)]
    weights = [t for t in tensors if is_constant(t)]
    first = result.items[0] if isinstance(result, TupleType) else result
    if tasks is None:
        tasks = rows_of(first) if isinstance(first, TensorType) else 1
    return Cost(
        streamed=sum(map(nbytes, weights), Polynomial()),
        read=sum((nbytes(t) for t in tensors if not is_constant(t)), Polynomial()),
        write=nbytes(result),
        flops=Polynomial.of(flops),
        tasks=Polynomial.of(tasks),
    )


def nothing() -> Cost:
    """The cost of a view."""
    return Cost(*[Polynomial()] * 5)
