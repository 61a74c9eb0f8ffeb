"""Normalisations over the last axis, alone and joined with the residual addition before them."""

import torch
import torch.nn.functional as F

from ..ir.op import Cost, Traits
from ..ir.types import TensorType, TupleType
from .registry import ROUNDED, op
from .typing import elements, require, traffic

Tensor = torch.Tensor
ROWWISE = Traits(rowwise=True)


@op("rms_norm", ROWWISE, ROUNDED)
def rms_norm(x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis (Zhang & Sennrich, 2019): ``x / sqrt(mean(x ** 2) + eps) * weight``.

    x: [..., H]; weight: [H], of x's dtype or float32; result: x's type. Computed in float32, rounded once.
    """
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)
    return (y * weight.float()).to(x.dtype)


@rms_norm.fake
def _(x: TensorType, weight: TensorType, *, eps: float) -> TensorType:
    require(weight.shape == x.shape[-1:], f"rms_norm requires a weight [{x.shape[-1]}], got {weight}")
    require(weight.dtype in (x.dtype, "f32"), f"rms_norm requires a weight of {x.dtype} or f32, got {weight}")
    return x


@rms_norm.cost
def _(x: TensorType, weight: TensorType, *, eps: float) -> Cost:
    return traffic([x, weight], x, flops=4 * elements(x))


@op("layer_norm", ROWWISE, ROUNDED)
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Layer norm over the last axis (Ba et al., 2016): ``(x - mean(x)) / sqrt(var(x) + eps) * weight + bias``.

    x: [..., H]; weight, bias: [H]; result: x's type. The variance is the biased one. Computed in float32, rounded once.
    """
    return F.layer_norm(x.float(), x.shape[-1:], weight.float(), bias.float(), eps).to(x.dtype)


@layer_norm.fake
def _(x: TensorType, weight: TensorType, bias: TensorType, *, eps: float) -> TensorType:
    require(weight.shape == bias.shape == x.shape[-1:], f"layer_norm of {x} got weight {weight}, bias {bias}")
    return x


@layer_norm.cost
def _(x: TensorType, weight: TensorType, bias: TensorType, *, eps: float) -> Cost:
    return traffic([x, weight, bias], x, flops=6 * elements(x))


@op("add_rms_norm", ROWWISE, ROUNDED)
def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """The residual addition and the norm after it: ``s = x + residual`` and ``rms_norm(s, weight, eps=eps)``.

    x, residual: [..., H] of one type; weight: [H]; both results are returned. s is rounded to x's dtype before the norm
    reads it.
    """
    s = x + residual
    return s, rms_norm(s, weight, eps=eps)


@add_rms_norm.fake
def _(x: TensorType, residual: TensorType, weight: TensorType, *, eps: float) -> TupleType:
    require(x == residual, f"add_rms_norm requires operands of one type, got {x} and {residual}")
    return TupleType((x, rms_norm.result_type(x, weight, eps=eps)))


@add_rms_norm.cost
def _(x: TensorType, residual: TensorType, weight: TensorType, *, eps: float) -> Cost:
    return traffic([x, residual, weight], TupleType((x, x)), flops=5 * elements(x))


@op("add_layer_norm", ROWWISE, ROUNDED)
def add_layer_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """The residual addition and the norm after it: ``s = x + residual`` and ``layer_norm(s, weight, bias, eps=eps)``.

    x, residual: [..., H] of one type; weight, bias: [H]; both results are returned. s is rounded to x's dtype before
    the norm reads it.
    """
    s = x + residual
    return s, layer_norm(s, weight, bias, eps=eps)


@add_layer_norm.fake
def _(x: TensorType, residual: TensorType, weight: TensorType, bias: TensorType, *, eps: float) -> TupleType:
    require(x == residual, f"add_layer_norm requires operands of one type, got {x} and {residual}")
    return TupleType((x, layer_norm.result_type(x, weight, bias, eps=eps)))


@add_layer_norm.cost
def _(x: TensorType, residual: TensorType, weight: TensorType, bias: TensorType, *, eps: float) -> Cost:
    return traffic([x, residual, weight, bias], TupleType((x, x)), flops=7 * elements(x))
