"""Ops of the plans after the forward plan: choosing tokens and scoring given ones.

``sample`` has no eager reference on tensors alone: its rows are C records (``xllmc/sampler.h``), and its meaning is
stated and tested there.
"""

import torch

from ..ir.dims import symbol
from ..ir.op import Cost, Traits
from ..ir.types import TensorType, TupleType
from .registry import ROUNDED, op
from .typing import EFFORT, elements, require, rows_of, traffic

Tensor = torch.Tensor
TOP_LOGPROBS = 20


@op("token_logprob", Traits(rowwise=True), ROUNDED)
def token_logprob(logits: Tensor, targets: Tensor) -> Tensor:
    """The natural log-probability of each row's target under the softmax of its logits.

    logits: f32[R, V]; targets: i32[R], each below V; result: f32[R].
    """
    return logits.log_softmax(-1).gather(-1, targets.long()[:, None])[:, 0]


@token_logprob.fake
def _(logits: TensorType, targets: TensorType) -> TensorType:
    require(logits.dtype == "f32" and len(logits.shape) == 2, f"token_logprob requires f32[R, V], got {logits}")
    return logits.with_shape(logits.shape[0])


@token_logprob.cost
def _(logits: TensorType, targets: TensorType) -> Cost:
    flops = (EFFORT["exp"] + 2) * elements(logits)
    return traffic([logits, targets], logits.with_shape(logits.shape[0]), flops, tasks=rows_of(logits))


@op("sample", tolerance=ROUNDED)
def sample(
    logits: Tensor, rows: Tensor, history: Tensor, bias_ids: Tensor, bias_values: Tensor, bitmask: Tensor
) -> tuple[Tensor, ...]:
    """One token a row by the row's settings, with log-probabilities of three kinds and the likeliest tokens.

    logits: f32[R, V]; rows: u8[R, 80], one C record of settings each; history, bias_ids, bias_values and bitmask: lists
    of which the records name parts. Results: token i32[R]; logprobs f32[R, 3] (of the model, after temperature, of
    the distribution sampled); top_ids i32[R, 20]; top_values f32[R, 20].
    """
    raise TypeError("sample is defined by its kernel (xllmc/sampler.h) and cannot be interpreted")


@sample.fake
def _(logits: TensorType, *operands: TensorType) -> TupleType:
    rows = symbol("R")
    require(logits.dtype == "f32" and logits.shape[0] == rows, f"sample requires logits f32[R, V], got {logits}")
    return TupleType(
        (
            TensorType("i32", (rows,)),
            TensorType("f32", (rows, 3)),
            TensorType("i32", (rows, TOP_LOGPROBS)),
            TensorType("f32", (rows, TOP_LOGPROBS)),
        )
    )


@sample.cost
def _(logits: TensorType, *operands: TensorType) -> Cost:
    return traffic([logits], sample.result_type(logits), 2 * (EFFORT["exp"] + 2) * elements(logits))
