"""Rotary position embedding (Su et al., 2021), with the two halves of a head rotated against each other."""

import torch

from ..ir.op import Cost, Traits
from ..ir.types import TensorType
from .registry import ROUNDED, op
from .typing import EFFORT, elements, require, rows_of, traffic

Tensor = torch.Tensor


@op("rope_table", Traits(rowwise=True), {"f32": 1e-6})
def rope_table(positions: Tensor, inv_freq: Tensor, *, scale: float) -> Tensor:
    """Cosines, then sines, of every position's angles, times ``scale``, in float32.

    positions: i32[T]; inv_freq: f32[D/2]; result: f32[T, D].
    """
    angles = positions.float()[:, None] * inv_freq
    return torch.cat([angles.cos(), angles.sin()], -1) * scale


@rope_table.fake
def _(positions: TensorType, inv_freq: TensorType, *, scale: float) -> TensorType:
    require(inv_freq.dtype == "f32" and len(inv_freq.shape) == 1, f"rope_table requires f32[D/2], got {inv_freq}")
    return TensorType("f32", (*positions.shape, 2 * inv_freq.shape[0]))


@rope_table.cost
def _(positions: TensorType, inv_freq: TensorType, *, scale: float) -> Cost:
    result = rope_table.result_type(positions, inv_freq, scale=scale)
    flops = 2 * EFFORT["sin"] * elements(positions) * elements(inv_freq)
    return traffic([positions, inv_freq], result, flops)


@op("rope", Traits(rowwise=True), ROUNDED)
def rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the first D elements of every head; those after them stay.

    x: [T, heads, >= D]; table: f32[T, D] of ``rope_table``; result: x's type. Element i of the first half and element
    i of the second are the two coordinates of one rotation. Computed in float32, rounded once.
    """
    rotary = table.shape[-1]
    cos, sin = table[:, None, : rotary // 2], table[:, None, rotary // 2 :]
    y = x.float()
    low, high, rest = y.split([rotary // 2, rotary // 2, y.shape[-1] - rotary], -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin, rest], -1).to(x.dtype)


@rope.fake
def _(x: TensorType, table: TensorType) -> TensorType:
    require(len(x.shape) == 3 and x.shape[:1] == table.shape[:1], f"rope requires x [T, heads, D], got {x}, {table}")
    return x


@rope.cost
def _(x: TensorType, table: TensorType) -> Cost:
    return traffic([x, table], x, flops=3 * elements(x), tasks=rows_of(table))
