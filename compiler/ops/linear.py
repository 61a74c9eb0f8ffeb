"""Matrix products with a weight, their epilogues, and table look-ups."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from ...runtime.artifact.recipe import PANEL
from ..ir.body import Body
from ..ir.dims import whole
from ..ir.op import Cost, Traits
from ..ir.types import TORCH_DTYPES, TensorType
from .epilogue import apply_epilogue, epilogue_flops, epilogue_type
from .registry import EXACT, ROUNDED, op
from .typing import EFFORT, elements, nbytes, require, rows_of, traffic

Tensor = torch.Tensor

GATE_BLOCK = 16
"""Rows of gate and up weights that alternate in a gated linear: half a panel each."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "silu": F.silu,
    "relu": F.relu,
    "gelu_erf": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@op("linear", Traits(rowwise=True), ROUNDED)
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *operands: Tensor,
    activation: str = "none",
    gated: int = 0,
    out_dtype: str | None = None,
    epilogue: Body | None = None,
) -> Tensor:
    """``activation(x @ weight.T + bias)``, accumulated in float32 and rounded once, to ``out_dtype`` (default: x's).

    x: [..., K]; weight: [N, K]; bias: [N] or None; result: [..., N]. ``activation``: none, silu, relu, gelu_erf,
    gelu_tanh, tanh or sigmoid.
    ``gated`` > 0: the weight holds a gate and an up projection of ``gated`` rows each, interleaved in blocks of 16 rows
    and padded to a multiple of 16; the result [..., gated] is ``activation(gate) * up`` (Shazeer, 2020).
    ``epilogue``: what is done to that before it is rounded, with ``operands`` for its further placeholders; the
    result's dtype is then the body's.
    """
    wanted = TORCH_DTYPES[out_dtype] if out_dtype else x.dtype
    if wanted == x.dtype and bias is None and activation == "none" and not gated and epilogue is None:
        return F.linear(x, weight)  # the same, without a float32 copy of the weight
    y = x.float() @ weight.float().T
    if bias is not None:
        y = y + bias.float()
    act = ACTIVATIONS[activation]
    if gated:
        blocks = y.unflatten(-1, (-1, 2, GATE_BLOCK))
        gate, up = (blocks[..., i, :].flatten(-2)[..., :gated] for i in (0, 1))
        y = act(gate) * up
    else:
        y = act(y)
    return apply_epilogue(epilogue, y, operands) if epilogue else y.to(wanted)


@linear.fake
def _(
    x: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    *operands: TensorType,
    activation: str = "none",
    gated: int = 0,
    out_dtype: str | None = None,
    epilogue: Body | None = None,
) -> TensorType:
    require(len(weight.shape) == 2, f"linear requires a weight [N, K], got {weight}")
    rows, inner = weight.shape
    require(x.shape[-1] == inner, f"linear requires x [..., K] and weight [N, K], got {x} and {weight}")
    require(x.dtype == weight.dtype, f"linear requires one dtype, got {x} and {weight}")
    require(bias is None or bias == TensorType(x.dtype, (rows,)), f"linear requires a bias [{rows}], got {bias}")
    require(activation in ACTIVATIONS, f"linear knows activations {', '.join(ACTIVATIONS)}, got {activation!r}")
    if gated:
        padded = -(-gated // GATE_BLOCK) * GATE_BLOCK
        require(rows == 2 * padded, f"a gated linear of {gated} requires {2 * padded} rows, got {weight}")
        require(bias is None, "a gated linear takes no bias")
    product = TensorType(out_dtype or x.dtype, (*x.shape[:-1], gated or rows))
    return epilogue_type(epilogue, product, operands)


@linear.cost
def _(
    x: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    *operands: TensorType,
    activation: str = "none",
    epilogue: Body | None = None,
    **attributes: object,
) -> Cost:
    result = linear.result_type(x, weight, bias, *operands, activation=activation, epilogue=epilogue, **attributes)
    assert isinstance(result, TensorType)
    columns, inner = map(whole, weight.shape)
    panels = -(-columns // PANEL)
    padded = weight.with_shape(panels * PANEL, inner + inner % 2)  # as it is packed
    flops = 2 * elements(padded) * rows_of(x) + EFFORT.get(activation, 1) * elements(result)
    return traffic([x, padded, bias, *operands], result, flops + epilogue_flops(epilogue), tasks=panels)


@op("embedding", Traits(same_bits=True), EXACT)
def embedding(table: Tensor, ids: Tensor, *operands: Tensor, epilogue: Body | None = None) -> Tensor:
    """Rows of a table by id.

    table: [V, H]; ids: i32[T], each below V; result: [T, H].
    ``epilogue``: what is done to them, in float32, with ``operands`` for its further placeholders.
    """
    rows = table[ids.long()]
    return apply_epilogue(epilogue, rows.float(), operands) if epilogue else rows


@embedding.fake
def _(table: TensorType, ids: TensorType, *operands: TensorType, epilogue: Body | None = None) -> TensorType:
    require(len(table.shape) == 2, f"embedding requires a table [V, H], got {table}")
    require(ids.dtype == "i32", f"embedding requires i32 ids, got {ids}")
    return epilogue_type(epilogue, table.with_shape(*ids.shape, table.shape[1]), operands)


@embedding.cost
def _(table: TensorType, ids: TensorType, *operands: TensorType, epilogue: Body | None = None) -> Cost:
    result = embedding.result_type(table, ids, *operands, epilogue=epilogue)
    moved = traffic([ids, *operands], result, epilogue_flops(epilogue))
    return replace(moved, streamed=moved.streamed + nbytes(table.with_shape(*ids.shape, table.shape[1])))
