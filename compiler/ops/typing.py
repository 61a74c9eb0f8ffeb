"""Rules that type and cost functions share. Cost functions see types whose sizes are all whole numbers."""

from collections.abc import Iterable
from typing import Any

from ..ir.dims import Size, product, whole
from ..ir.op import Cost
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


def elements(value: TensorType) -> int:
    return whole(product(value.shape))


def nbytes(value: ValueType) -> int:
    """Bytes of a tensor or of several; 0 for a state, whose traffic its op states itself."""
    if isinstance(value, TupleType):
        return sum(map(nbytes, value.items))
    return whole(value.bytes_of(value.shape)) if isinstance(value, TensorType) else 0


def traffic(operands: Iterable[Any], result: ValueType, flops: float = 0.0) -> Cost:
    """The cost of reading every tensor operand once and writing the result once."""
    return Cost(sum(nbytes(o) for o in operands if isinstance(o, TensorType)), nbytes(result), flops)
