"""Matrix products with a weight, their epilogues, and table look-ups."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..ir.dims import whole
from ..ir.op import Cost, Traits
from ..ir.types import TORCH_DTYPES, TensorType
from .registry import EXACT, ROUNDED, op
from .typing import elements, require, traffic

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
    *,
    activation: str = "none",
    gated: int = 0,
    out_dtype: str | None = None,
) -> Tensor:
    """``activation(x @ weight.T + bias)``, accumulated in float32 and rounded once, to ``out_dtype`` (default: x's).

    x: [..., K]; weight: [N, K]; bias: [N] or None; result: [..., N].
    ``gated`` > 0: the weight holds a gate and an up projection of ``gated`` rows each, interleaved in blocks of 16 rows
    and padded to a multiple of 16; the result [..., gated] is ``activation(gate) * up`` (Shazeer, 2020).
    """
    wanted = TORCH_DTYPES[out_dtype] if out_dtype else x.dtype
    if wanted == x.dtype and bias is None and activation == "none" and not gated:
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
    return y.to(wanted)


@linear.fake
def _(
    x: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    *,
    activation: str = "none",
    gated: int = 0,
    out_dtype: str | None = None,
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
    return TensorType(out_dtype or x.dtype, (*x.shape[:-1], gated or rows))


@linear.cost
def _(x: TensorType, weight: TensorType, bias: TensorType | None, **attributes: object) -> Cost:
    result = linear.result_type(x, weight, bias, **attributes)
    return traffic([x, weight, bias], result, flops=2 * elements(x) * whole(weight.shape[0]))


@op("embedding", Traits(same_bits=True), EXACT)
def embedding(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table by id. table: [V, H]; ids: i32[T]; result: [T, H]."""
    return table[ids.long()]


@embedding.fake
def _(table: TensorType, ids: TensorType) -> TensorType:
    require(len(table.shape) == 2, f"embedding requires a table [V, H], got {table}")
    require(ids.dtype == "i32", f"embedding requires i32 ids, got {ids}")
    return table.with_shape(*ids.shape, table.shape[1])


@embedding.cost
def _(table: TensorType, ids: TensorType) -> Cost:
    result = embedding.result_type(table, ids)
    return traffic([result, ids], result)
