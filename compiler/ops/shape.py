"""Ops that move or select elements, and reductions over the last axis."""

from collections.abc import Callable

import torch

from ..ir.dims import Dim, Size, product
from ..ir.op import Cost, Op, Traits
from ..ir.types import TensorType, TupleType, ValueType
from .registry import EXACT, ROUNDED, op
from .typing import elements, nothing, require, traffic

Tensor = torch.Tensor


@op("reshape", Traits(view=True, same_bits=True), EXACT)
def reshape(x: Tensor, *, shape: tuple[Size, ...]) -> Tensor:
    """The same elements in row-major order under another shape.

    ``shape`` has as many elements as x, and may name symbols: on one axis at most.
    """
    return x.reshape([s if isinstance(s, int) else -1 for s in shape])


@reshape.fake
def _(x: TensorType, *, shape: tuple[Size, ...]) -> TensorType:
    require(product(shape) == x.elements, f"reshape requires as many elements, got {x} to {list(map(str, shape))}")
    return x.with_shape(*shape)


@reshape.cost
def _(x: TensorType, *, shape: tuple[Size, ...]) -> Cost:
    return nothing()


@op("permute", Traits(same_bits=True), EXACT)
def permute(x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    """Axes in another order, as a copy.

    ``axes``: for every axis of the result, the axis of x it was.
    """
    return x.permute(axes).contiguous()


@permute.fake
def _(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    require(sorted(axes) == list(range(len(x.shape))), f"permute requires each axis of {x} once, got {axes}")
    return x.with_shape(*(x.shape[a] for a in axes))


@permute.cost
def _(x: TensorType, *, axes: tuple[int, ...]) -> Cost:
    return traffic([x], x)


@op("slice", Traits(same_bits=True), EXACT)
def slice_(x: Tensor, *, axis: int, start: int, stop: int) -> Tensor:
    """Elements ``start`` to ``stop`` (exclusive) of one axis, as a copy.

    All three are counted from the front, and the axis has a fixed size.
    """
    return x.narrow(axis, start, stop - start).contiguous()


@slice_.fake
def _(x: TensorType, *, axis: int, start: int, stop: int) -> TensorType:
    require(0 <= axis < len(x.shape), f"slice requires an axis of {x}, got {axis}")
    size = x.shape[axis]
    require(isinstance(size, int) and 0 <= start < stop <= size, f"slice {start}:{stop} leaves axis {axis} of {x}")
    return x.with_shape(*x.shape[:axis], stop - start, *x.shape[axis + 1 :])


@slice_.cost
def _(x: TensorType, *, axis: int, start: int, stop: int) -> Cost:
    result = slice_.result_type(x, axis=axis, start=start, stop=stop)
    return traffic([result], result)


@op("concat", Traits(same_bits=True), EXACT)
def concat(*tensors: Tensor, axis: int) -> Tensor:
    """Tensors joined along an axis, in order.

    They share a dtype and all other sizes; ``axis`` counts from the front, and is of fixed size in each.
    """
    return torch.cat(tensors, axis)


@concat.fake
def _(*tensors: TensorType, axis: int) -> TensorType:
    first = tensors[0]
    sizes: list[int] = []
    for t in tensors:
        same = t.dtype == first.dtype and t.shape[:axis] == first.shape[:axis]
        require(same and t.shape[axis + 1 :] == first.shape[axis + 1 :], f"concat on {axis}: {first} and {t} differ")
        size = t.shape[axis]
        if isinstance(size, Dim):
            raise TypeError(f"concat requires fixed sizes on axis {axis}, got {t}")
        sizes.append(size)
    return first.with_shape(*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :])


@concat.cost
def _(*tensors: TensorType, axis: int) -> Cost:
    return traffic(tensors, concat.result_type(*tensors, axis=axis))


@op("take_rows", Traits(same_bits=True), EXACT)
def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of the first axis by index, as a copy.

    x: [T, ...]; rows: i32[R], each below T; result: [R, ...].
    """
    return x[rows.long()]


@take_rows.fake
def _(x: TensorType, rows: TensorType) -> TensorType:
    require(len(rows.shape) == 1 and rows.dtype == "i32", f"take_rows requires i32[R] rows, got {rows}")
    return x.with_shape(*rows.shape, *x.shape[1:])


@take_rows.cost
def _(x: TensorType, rows: TensorType) -> Cost:
    result = take_rows.result_type(x, rows)
    return traffic([result, rows], result)


@op("get", Traits(view=True, same_bits=True), EXACT)
def get(values: tuple, *, index: int) -> object:
    """One of the results of an op that has several.

    ``index`` counts them from 0. Nothing else reads such a value.
    """
    return values[index]


@get.fake
def _(values: TupleType, *, index: int) -> ValueType:
    return values.items[index]


@get.cost
def _(values: TupleType, *, index: int) -> Cost:
    return nothing()


def _reduction(name: str, reference: Callable[[Tensor], Tensor], doc: str) -> Op:
    registered = op(name, Traits(rowwise=True, reduction=True), ROUNDED)(reference)
    registered.doc = doc

    @registered.fake
    def _(x: TensorType) -> TensorType:
        require(len(x.shape) > 0, f"{name} requires at least one axis, got {x}")
        return x.with_shape(*x.shape[:-1], 1)

    @registered.cost
    def _(x: TensorType) -> Cost:
        return traffic([x], x.with_shape(*x.shape[:-1], 1), flops=elements(x))

    return registered


mean = _reduction("mean", lambda x: x.mean(-1, keepdim=True), "Mean of the last axis, kept with size 1.")
total = _reduction("sum", lambda x: x.sum(-1, keepdim=True), "Sum of the last axis, kept with size 1.")
amax = _reduction("amax", lambda x: x.amax(-1, keepdim=True), "Largest of the last axis, kept with size 1.")
