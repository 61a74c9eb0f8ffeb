"""Import rules: one handler for each ATen operation that traced models use."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ..runtime.artifact.errors import CheckpointError
from .importer import EMPTY, Handler, Imported, Importer

HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys((f"aten.{n}" for n in names), handler))
        return handler

    return register


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


# --- elementwise


def elementwise(importer: Importer, op: str, dtype: str, *operands: Any, **attributes: Any) -> Imported:
    """Cast operands to the result's dtype, insert the unit axes where they meet, emit."""
    axes = tuple(sorted({a for o in operands if isinstance(o, Imported) for a in o.axes}))
    number = int if dtype == "i32" else float
    nodes = [
        cast_to(importer, importer.meeting(o, axes), dtype) if isinstance(o, Imported) else number(o) for o in operands
    ]
    return Imported(importer.emit(op, *nodes, **attributes), axes)


def cast_to(importer: Importer, node: fx.Node, dtype: str) -> fx.Node:
    return node if node.meta["type"].dtype == dtype else importer.emit("cast", node, dtype=dtype)


def aligned(importer: Importer, node: fx.Node, operand: Any) -> Any:
    """An operand's axes counted in the result's rank (broadcasting aligns from the right)."""
    value = importer.value(operand)
    if not isinstance(value, Imported):
        return value
    shift = node.meta["val"].dim() - operand.meta["val"].dim()
    return Imported(value.node, tuple(a + shift for a in value.axes))


def unary(op: str) -> Handler:
    def handler(importer: Importer, node: fx.Node) -> Imported:
        return elementwise(importer, op, importer.dtype(node), importer.value(node.args[0]))

    return handler


def binary(op: str) -> Handler:
    def handler(importer: Importer, node: fx.Node) -> Imported:
        a, b = (aligned(importer, node, o) for o in node.args[:2])
        if argument(node, 2, "alpha", 1) != 1:
            raise CheckpointError(f"{node.target} with alpha in {importer.where} has no import rule")
        if not isinstance(a, Imported):
            if op in ("add", "mul", "maximum", "minimum"):
                a, b = b, a
            elif op == "sub":
                return elementwise(importer, "add", importer.dtype(node), elementwise_neg(importer, node, b), a)
            else:
                raise CheckpointError(f"{node.target} of a number by a tensor in {importer.where} has no import rule")
        return elementwise(importer, op, importer.dtype(node), a, b)

    return handler


def elementwise_neg(importer: Importer, node: fx.Node, value: Imported) -> Imported:
    return elementwise(importer, "neg", importer.dtype(node), value)


for _aten, _op in {
    "neg": "neg",
    "abs": "abs",
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "sin": "sin",
    "cos": "cos",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "erf": "erf",
    "silu": "silu",
    "relu": "relu",
}.items():
    HANDLERS[f"aten.{_aten}.default"] = HANDLERS[f"aten.{_aten}_.default"] = unary(_op)

for _aten, _op in {"add": "add", "sub": "sub", "mul": "mul", "div": "div"}.items():
    for _overload in ("Tensor", "Scalar"):
        HANDLERS[f"aten.{_aten}.{_overload}"] = HANDLERS[f"aten.{_aten}_.{_overload}"] = binary(_op)
HANDLERS["aten.maximum.default"] = binary("maximum")
HANDLERS["aten.minimum.default"] = binary("minimum")


@handles("pow.Tensor_Scalar")
def _pow(importer: Importer, node: fx.Node) -> Imported:
    base = importer.value(node.args[0])
    return elementwise(importer, "pow", importer.dtype(node), base, exponent=float(node.args[1]))


@handles("square.default")
def _square(importer: Importer, node: fx.Node) -> Imported:
    return elementwise(importer, "pow", importer.dtype(node), importer.value(node.args[0]), exponent=2.0)


@handles("clamp.default", "clamp_.default")
def _clamp(importer: Importer, node: fx.Node) -> Imported:
    value = importer.value(node.args[0])
    for op, position, name in (("maximum", 1, "min"), ("minimum", 2, "max")):
        if (bound := argument(node, position, name)) is not None:
            value = elementwise(importer, op, importer.dtype(node), value, bound)
    return value


@handles("gelu.default")
def _gelu(importer: Importer, node: fx.Node) -> Imported:
    approximate = argument(node, 1, "approximate", "none")
    op = {"none": "gelu_erf", "tanh": "gelu_tanh"}[approximate]
    return elementwise(importer, op, importer.dtype(node), importer.value(node.args[0]))


@handles("to.dtype", "to.dtype_layout", "_to_copy.default", "type_as.default", "to.device", "float.default")
def _cast(importer: Importer, node: fx.Node) -> Imported | float:
    value = importer.value(node.args[0])
    if not isinstance(value, Imported):
        return float(torch.tensor(value, dtype=node.meta["val"].dtype))
    return Imported(cast_to(importer, value.node, importer.dtype(node)), value.axes)


@handles("contiguous.default", "clone.default", "alias.default", "detach.default", "lift_fresh_copy.default")
def _identity(importer: Importer, node: fx.Node) -> Any:
    return importer.value(node.args[0])


@handles("dropout.default")
def _dropout(importer: Importer, node: fx.Node) -> Any:
    if argument(node, 2, "train", False):
        raise CheckpointError(f"dropout in training mode in {importer.where}; trace the model in eval mode")
    return importer.value(node.args[0])


# --- shapes


@handles("sym_size.int")
def _sym_size(importer: Importer, node: fx.Node) -> Any:
    return node.meta["val"]


@handles(
    "view.default", "reshape.default", "_unsafe_view.default", "unsqueeze.default", "squeeze.dim", "flatten.using_ints"
)
def _view(importer: Importer, node: fx.Node) -> Imported:
    value = importer.value(node.args[0])
    before, after = importer.shape(node.args[0]), importer.shape(node)
    repeated = [a for a, s in enumerate(before) if s != 1 and a not in value.axes]
    if not repeated:
        return importer.viewed(value, after)
    if str(node.target) != "aten.unsqueeze.default":
        raise CheckpointError(f"{node.target} of an expanded tensor in {importer.where} has no import rule")
    inserted = int(node.args[1]) % len(after)
    return Imported(value.node, tuple(a + (a >= inserted) for a in value.axes))


@handles("expand.default")
def _expand(importer: Importer, node: fx.Node) -> Imported:
    value = importer.value(node.args[0])
    shift = node.meta["val"].dim() - node.args[0].meta["val"].dim()
    return Imported(value.node, tuple(a + shift for a in value.axes))


@handles("transpose.int", "permute.default", "t.default")
def _transpose(importer: Importer, node: fx.Node) -> Imported:
    value = importer.value(node.args[0])
    rank = node.meta["val"].dim()
    order = list(range(rank))
    if str(node.target) == "aten.permute.default":
        order = [int(a) % rank for a in node.args[1]]
    else:
        first, second = (int(a) % rank for a in node.args[1:3]) if len(node.args) > 1 else (0, 1)
        order[first], order[second] = second, first
    moved = [order.index(a) for a in value.axes]
    sequence = sorted(range(len(moved)), key=moved.__getitem__)
    if sequence == list(range(len(moved))):
        return Imported(value.node, tuple(moved))
    return Imported(importer.emit("permute", value.node, axes=tuple(sequence)), tuple(sorted(moved)))


@handles("slice.Tensor")
def _slice(importer: Importer, node: fx.Node) -> Any:
    value = importer.value(node.args[0])
    axis = int(argument(node, 1, "dim", 0)) % node.meta["val"].dim()
    size = importer.shape(node.args[0])[axis]
    start, stop = argument(node, 2, "start", 0) or 0, argument(node, 3, "end", sys.maxsize)
    if (step := argument(node, 4, "step", 1)) != 1:
        return every(importer, node, value, axis, start, step)
    if start == 0 and (stop is None or stop == sys.maxsize or stop == size):
        return value
    if not isinstance(size, int):
        raise CheckpointError(f"a slice of the token axis in {importer.where} mixes tokens outside attention")
    start, stop = (max(0, min(b + size if b < 0 else b, size)) for b in (start, size if stop is None else stop))
    if start < stop:
        return sliced(importer, value, axis, start, stop)
    if axis != node.meta["val"].dim() - 1:
        raise CheckpointError(f"an empty slice of axis {axis} in {importer.where} has no import rule")
    return EMPTY


def sliced(importer: Importer, value: Imported, axis: int, start: int, stop: int) -> Imported:
    if axis not in value.axes:
        return value
    kept = value.axes.index(axis)
    return Imported(importer.emit("slice", value.node, axis=kept, start=start, stop=stop), value.axes)


def every(importer: Importer, node: fx.Node, value: Imported, axis: int, start: int, step: int) -> Imported:
    """Each ``step``-th element of an axis: the ``start``-th column of its rows of ``step``."""
    before, after = importer.shape(node.args[0]), importer.shape(node)
    if start >= step or axis not in value.axes or before[axis] != after[axis] * step:
        raise CheckpointError(f"a slice with step {step} of {value.type} in {importer.where} has no import rule")
    kept, shape = value.axes.index(axis), value.type.shape
    rows = importer.reshape(value.node, (*shape[:kept], after[axis], step, *shape[kept + 1 :]))
    column = importer.emit("slice", rows, axis=kept + 1, start=start, stop=start + 1)
    return Imported(importer.reshape(column, (*shape[:kept], after[axis], *shape[kept + 1 :])), value.axes)


@handles("select.int")
def _select(importer: Importer, node: fx.Node) -> Imported:
    value, sizes = importer.value(node.args[0]), importer.shape(node.args[0])
    axis = int(node.args[1]) % len(sizes)
    size = sizes[axis]
    if not isinstance(size, int):
        raise CheckpointError(f"select along the token axis in {importer.where} mixes tokens outside attention")
    index = int(node.args[2]) % size
    rest = sliced(importer, value, axis, index, index + 1) if axis in value.axes else value
    kept = [i for i, a in enumerate(rest.axes) if a != axis]
    shape = tuple(rest.type.shape[i] for i in kept)
    return Imported(importer.reshape(rest.node, shape), tuple(rest.axes[i] - (rest.axes[i] > axis) for i in kept))


@handles("split.Tensor", "split_with_sizes.default", "chunk.default")
def _split(importer: Importer, node: fx.Node) -> list[Imported]:
    value = importer.value(node.args[0])
    axis = int(argument(node, 2, "dim", 0)) % node.args[0].meta["val"].dim()
    parts, start = [], 0
    for part in node.meta["val"]:
        size = int(part.shape[axis])
        parts.append(sliced(importer, value, axis, start, start + size))
        start += size
    return parts


@handles("cat.default")
def _cat(importer: Importer, node: fx.Node) -> Imported:
    axis = int(argument(node, 1, "dim", 0)) % node.meta["val"].dim()
    values = [v for v in map(importer.value, node.args[0]) if v is not EMPTY]
    return joined(importer, values, axis, importer.dtype(node))


def joined(importer: Importer, values: list[Imported], axis: int, dtype: str) -> Imported:
    if len(values) == 1:
        return Imported(cast_to(importer, values[0].node, dtype), values[0].axes)
    axes = tuple(sorted({a for v in values for a in v.axes} | {axis}))
    nodes = [cast_to(importer, importer.with_axes(v, axes), dtype) for v in values]
    return Imported(importer.emit("concat", *nodes, axis=axes.index(axis)), axes)


@handles("stack.default")
def _stack(importer: Importer, node: fx.Node) -> Imported:
    axis = int(argument(node, 1, "dim", 0)) % node.meta["val"].dim()
    parts = [Imported(v.node, tuple(a + (a >= axis) for a in v.axes)) for v in map(importer.value, node.args[0])]
    return joined(importer, parts, axis, importer.dtype(node))


@handles("repeat_interleave.self_int")
def _repeat_interleave(importer: Importer, node: fx.Node) -> Imported:
    """Each element several times: columns of equal numbers, side by side."""
    value, times = importer.value(node.args[0]), int(node.args[1])
    axis = (-1 if (dim := argument(node, 2, "dim")) is None else int(dim)) % node.meta["val"].dim()
    if axis not in value.axes or (dim is None and len(importer.shape(node.args[0])) != 1):
        raise CheckpointError(f"repeat_interleave of axis {dim} of {value.type} in {importer.where} has no import rule")
    column = Imported(value.node, tuple(a + (a > axis) for a in value.axes))
    return importer.viewed(joined(importer, [column] * times, axis + 1, importer.dtype(node)), importer.shape(node))


# --- reductions and products


@handles("mean.dim")
def _mean(importer: Importer, node: fx.Node) -> Imported:
    value = importer.value(node.args[0])
    rank = node.args[0].meta["val"].dim()
    dims = [int(d) % rank for d in node.args[1]]
    if dims != [rank - 1] or value.axes[-1] != rank - 1:
        raise CheckpointError(f"a mean over axes {dims} in {importer.where} has no import rule: only the last axis has")
    reduced = Imported(importer.emit("mean", value.node), value.axes)
    return reduced if argument(node, 2, "keepdim", False) else importer.viewed(reduced, importer.shape(node))


@handles("linear.default")
def _linear(importer: Importer, node: fx.Node) -> Imported:
    return matrix_product(
        importer, *(importer.value(argument(node, i, n)) for i, n in enumerate(("input", "weight", "bias")))
    )


@handles("addmm.default")
def _addmm(importer: Importer, node: fx.Node) -> Imported:
    bias, x, weight = (importer.value(a) for a in node.args[:3])
    if node.kwargs.get("beta", 1) != 1 or node.kwargs.get("alpha", 1) != 1:
        raise CheckpointError(f"addmm with beta or alpha in {importer.where} has no import rule")
    turned = Imported(importer.emit("permute", weight.node, axes=(1, 0)), weight.axes)
    return matrix_product(importer, x, turned, bias)


def matrix_product(importer: Importer, x: Imported, weight: Imported, bias: Imported | None) -> Imported:
    return Imported(importer.emit("linear", x.node, weight.node, bias.node if bias else None), x.axes)


@handles("matmul.default", "bmm.default", "mm.default")
def _matmul(importer: Importer, node: fx.Node) -> Imported:
    inner = importer.shape(node.args[0])[-1]
    if inner != 1:
        raise CheckpointError(
            f"a matrix product of two computed tensors in {importer.where} has no import rule: attention must go "
            "through transformers' attention interface"
        )
    return elementwise(importer, "mul", importer.dtype(node), *(importer.value(a) for a in node.args[:2]))


@handles("embedding.default")
def _embedding(importer: Importer, node: fx.Node) -> Imported:
    table, ids = (importer.value(a) for a in node.args[:2])
    rank = node.meta["val"].dim()
    return Imported(importer.emit("embedding", table.node, ids.node), (*ids.axes, rank - 1))


@handles("layer_norm.default")
def _layer_norm(importer: Importer, node: fx.Node) -> Imported:
    x = importer.value(node.args[0])
    weight, bias = (importer.value(argument(node, i, name)) for i, name in ((2, "weight"), (3, "bias")))
    eps = float(argument(node, 4, "eps", 1e-5))
    if len(node.args[1]) != 1:
        raise CheckpointError(f"layer_norm in {importer.where} over more than the last axis has no import rule")
    if weight is not None and bias is not None:
        return Imported(importer.emit("layer_norm", x.node, weight.node, bias.node, eps=eps), x.axes)
    if x.axes[-1:] != (node.meta["val"].dim() - 1,):
        raise CheckpointError(f"layer_norm of {x.type} in {importer.where} has no import rule")
    value = normed(importer, cast_to(importer, x.node, "f32"), eps)
    for op, factor in (("mul", weight), ("add", bias)):
        if factor is not None:
            value = importer.emit(op, value, cast_to(importer, factor.node, "f32"))
    return Imported(cast_to(importer, value, importer.dtype(node)), x.axes)


def normed(importer: Importer, x: fx.Node, eps: float) -> fx.Node:
    """A layer norm's arithmetic before its weight and bias, for where one of them is missing."""
    centred = importer.emit("sub", x, importer.emit("mean", x))
    variance = importer.emit("mean", importer.emit("mul", centred, centred))
    return importer.emit("mul", centred, importer.emit("rsqrt", importer.emit("add", variance, eps)))
