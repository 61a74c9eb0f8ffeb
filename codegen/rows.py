"""How generated loops see tensors: as rows along the last axis, each at an offset that follows from its number."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from torch import fx

from ..compiler.ir.dims import Dim, Size, product, whole
from ..compiler.ir.program import is_call, type_of
from ..compiler.ir.types import TensorType


class Term(NamedTuple):
    """One axis's part of an offset: ``row // divisor % modulus * stride`` elements; no ``%`` where modulus is None."""

    divisor: int
    modulus: int | None
    stride: int

    @property
    def boundaries(self) -> tuple[int, ...]:
        """At multiples of these rows it does anything but grow by the stride: none, if it always grows."""
        changes = (self.divisor,) if self.divisor > 1 else ()
        return changes if self.modulus is None else (*changes, self.divisor * self.modulus)


def split_row(kind: TensorType) -> tuple[tuple[Size, ...], int]:
    """Axes of rows, and a row's length: the last axis, or 1 where that grows with the step."""
    if not kind.shape or isinstance(kind.shape[-1], Dim):
        return kind.shape, 1
    return kind.shape[:-1], whole(kind.shape[-1])


def row_length(node: fx.Node) -> int:
    return split_row(type_of(node))[1]


def axes_around(node: fx.Node, row_axes: Sequence[Size]) -> tuple[Size, ...]:
    """The axes of rows to which a value of a loop over ``row_axes`` is broadcast where it is read."""
    while product(split_row(type_of(node))[0]) != product(row_axes):
        node = next(iter(node.users))
    return split_row(type_of(node))[0]


def row_offset(node: fx.Node, row_axes: Sequence[Size]) -> tuple[Term, ...]:
    """Where an operand of a loop over ``row_axes`` begins for a row: axes that broadcast contribute nothing.

    ValueError where another axis than the first would have to grow with the step, or where rows would be joined.
    """
    axes, length = split_row(type_of(node))
    if product(axes) == product(row_axes):
        return (Term(1, None, length),)
    if product(axes) == 1:
        return ()
    around = axes_around(node, row_axes)
    if any(isinstance(size, Dim) for size in around[1:]):
        raise ValueError(f"only the first axis of a loop's rows may grow with the step, got {around}")
    if len(axes) > len(around):
        raise ValueError(
            f"{type_of(node)} is reduced to {list(map(str, around))}: this goes across rows, as no loop does"
        )
    axes = (1,) * (len(around) - len(axes)) + axes
    terms, stride, divisor = [], length, 1
    for size, own in zip(reversed(around), reversed(axes), strict=True):
        if own != 1:
            terms.append(Term(divisor, size if isinstance(size, int) else None, stride))
            stride *= own if isinstance(own, int) else 1
        divisor *= size if isinstance(size, int) else 1
    return tuple(terms)


def pieces(values: tuple[fx.Node, ...], length: int) -> list[tuple[int, int]]:
    """Stretches of a row, [start, stop), in which no block of the values crosses a seam of a concatenation."""

    @cache
    def seams(value: fx.Node, start: int, stop: int) -> frozenset[int]:
        """Places of ``value``'s own row, strictly between start and stop."""
        if value.op == "placeholder" or row_length(value) == 1:
            return frozenset()
        if is_call(value, "slice"):
            begin = value.kwargs["start"]
            return frozenset(s - begin for s in seams(value.args[0], start + begin, stop + begin))
        found: set[int] = set()
        if is_call(value, "concat"):
            first = 0
            for part in value.args:
                last = first + row_length(part)
                low, high = max(start, first), min(stop, last)
                if low < high:
                    found |= {low, high} | {s + first for s in seams(part, low - first, high - first)}
                first = last
        else:
            for operand in value.all_input_nodes:
                found |= seams(operand, start, stop)
        return frozenset(s for s in found if start < s < stop)

    cuts = sorted(set().union(*(seams(v, 0, length) for v in values)))
    return list(zip([0, *cuts], [*cuts, length], strict=True))
