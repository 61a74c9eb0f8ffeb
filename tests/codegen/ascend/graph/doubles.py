"""CPU doubles of torch_npu's operators, behind the schemas of the snapshot, as torch_npu 2.13.0 documents them.

They refuse what its documentation refuses, and a few things that an NPU would not notice (pages that do not exist,
slots written twice). They compute in float32 and round once; an NPU may round more often.
"""

from collections.abc import Callable

import torch
from xllmc.codegen.ascend.graph.schemas import snapshot

Tensor = torch.Tensor
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
DOUBLES: dict[str, Callable] = {}
_kept: list[torch.library.Library] = []


def double(function: Callable) -> Callable:
    DOUBLES[function.__name__] = function
    return function


def install() -> None:
    """Register every double, once a process."""
    if _kept:
        return
    library = torch.library.Library("npu", "FRAGMENT")
    _kept.append(library)
    _, schemas = snapshot()
    for name, function in DOUBLES.items():
        library.define(str(schemas[name]).removeprefix("npu::"))
        library.impl(name, function, "CPU")


def check(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def one_type(*tensors: Tensor) -> None:
    check(tensors[0].dtype in FLOATS, f"{tensors[0].dtype} is no float that operators take")
    check(len({t.dtype for t in tensors}) == 1, f"operands of {[t.dtype for t in tensors]}")


def contiguous(*tensors: Tensor) -> None:
    check(all(t.is_contiguous() for t in tensors), "an operand is not contiguous")


@double
def npu_rms_norm(input: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    one_type(input, gamma)
    wide = input.float()
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * rstd * gamma.float()).to(input.dtype), rstd


@double
def npu_add_rms_norm(x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    one_type(x1, x2, gamma)
    check(x1.shape == x2.shape, "operands of one shape")
    total = x1 + x2
    out, rstd = npu_rms_norm(total, gamma, epsilon)
    return out, rstd, total


@double
def npu_layer_norm_eval(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    one_type(input, *(t for t in (weight, bias) if t is not None))
    wide = [None if t is None else t.float() for t in (weight, bias)]
    return torch.nn.functional.layer_norm(input.float(), normalized_shape, *wide, eps=eps).to(input.dtype)


@double
def npu_add_layer_norm(
    x1: Tensor, x2: Tensor, gamma: Tensor, beta: Tensor, epsilon: float = 1e-5, additional_output: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    one_type(x1, x2, gamma, beta)
    total = x1 + x2
    wide = total.float()
    mean = wide.mean(-1, keepdim=True)
    rstd = torch.rsqrt(wide.var(-1, keepdim=True, unbiased=False) + epsilon)
    out = ((wide - mean) * rstd * gamma.float() + beta.float()).to(x1.dtype)
    return out, mean, rstd, total if additional_output else torch.full_like(total, torch.nan)


@double
def npu_swiglu(input: Tensor, dim: int = -1) -> Tensor:
    one_type(input)
    gate, up = input.float().chunk(2, dim)
    return (torch.nn.functional.silu(gate) * up).to(input.dtype)


@double
def npu_rotary_mul(
    input: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str = "half", rotate: Tensor | None = None
) -> Tensor:
    one_type(input, r1, r2)
    check(input.ndim == r1.ndim == r2.ndim == 4, "rotary factors and operands have four axes")
    _, tokens, heads, dim = input.shape
    check(r1.shape == r2.shape == (1, tokens, 1, dim), f"factors [1, S, 1, D] of {input.shape}, got {r1.shape}")
    check(dim % 2 == 0 and dim < 896 and heads < 1000 and rotate is None, "D is even and below 896, N below 1000")
    check(float(torch.stack([r1.abs().max(), r2.abs().max()]).max()) <= 1, "factors lie within [-1, 1]")
    if rotary_mode == "half":
        low, high = input.float().chunk(2, -1)
        other = torch.cat([-high, low], -1)
    else:
        check(rotary_mode == "interleave", f"rotary_mode {rotary_mode}")
        other = torch.stack([-input[..., 1::2].float(), input[..., ::2].float()], -1).flatten(-2)
    return (input.float() * r1.float() + other * r2.float()).to(input.dtype)


@double
def npu_scatter_pa_kv_cache(
    key: Tensor,
    value: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    slot_mapping: Tensor,
    *,
    compress_lens: Tensor | None = None,
    compress_seq_offsets: Tensor | None = None,
    seq_lens: Tensor | None = None,
    cache_mode: str | None = "PA_NZ",
) -> None:
    one_type(key, value, key_cache, value_cache)
    contiguous(key, value, key_cache, value_cache, slot_mapping)
    check(cache_mode in (None, "Norm"), "plain rows want cache_mode Norm; PA_NZ is another layout")
    check(slot_mapping.dtype in (torch.int32, torch.int64), "slots are integers")
    check(key.shape[:2] == value.shape[:2], "as many keys as values")
    check(key_cache.shape[2:] == key.shape[1:] and value_cache.shape[2:] == value.shape[1:], "pages of these heads")
    slots = slot_mapping.long()
    check(int(slots.min()) >= 0 and int(slots.max()) < key_cache[..., 0, 0].numel(), "slots that exist")
    key_cache.flatten(0, 1)[slots] = key
    value_cache.flatten(0, 1)[slots] = value


@double
def npu_fused_infer_attention_score(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    atten_mask: Tensor | None = None,
    actual_seq_lengths: list[int] | None = None,
    actual_seq_lengths_kv: list[int] | None = None,
    block_table: Tensor | None = None,
    num_heads: int = 1,
    scale: float = 1.0,
    pre_tokens: int = 2147483647,
    next_tokens: int = 2147483647,
    input_layout: str = "BSH",
    num_key_value_heads: int = 0,
    sparse_mode: int = 0,
    block_size: int = 0,
    **rest: object,
) -> tuple[Tensor, Tensor]:
    """Of the layout TND over pages [pages, block_size, heads * D] alone, without a mask, or causal to the last key."""
    check(not any(value for value in rest.values() if not isinstance(value, Tensor)), f"further options: {rest}")
    check(not any(isinstance(value, Tensor) for value in rest.values()), f"further operands: {list(rest)}")
    check(input_layout == "TND", f"layout {input_layout} of a query {query.shape}")
    check(query.dtype in (torch.bfloat16, torch.float16), f"a query of {query.dtype}")
    one_type(query, key, value)
    contiguous(query, key, value)
    tokens, heads, dim = query.shape
    kv_heads = num_key_value_heads or num_heads
    check(heads == num_heads and num_heads % kv_heads == 0 and num_heads // kv_heads <= 64, "heads")
    check(key.shape == value.shape == (key.shape[0], block_size, kv_heads * dim), "pages [pages, block_size, H]")
    check(block_size % 128 == 0 and 0 < block_size <= 512 and dim % 16 == 0 and dim <= 512, "page and head sizes")
    check(actual_seq_lengths is not None and actual_seq_lengths_kv is not None and block_table is not None, "lengths")
    check(block_table.dtype == torch.int32 and block_table.shape[0] == len(actual_seq_lengths), "a table [B, pages]")
    check(len(actual_seq_lengths_kv) == len(actual_seq_lengths), "lengths of every sequence")
    check(actual_seq_lengths == sorted(actual_seq_lengths) and actual_seq_lengths[-1] == tokens, "cumulated lengths")
    check(int(block_table.min()) >= 0 and int(block_table.max()) < key.shape[0], "pages that exist")
    check(sparse_mode in (0, 3), f"sparse mode {sparse_mode} is none that this double knows")
    if sparse_mode == 3:
        check(atten_mask is not None and atten_mask.shape[-2:] == (2048, 2048), "a mask of 2048 x 2048")
        check(bool((atten_mask.bool() == torch.ones(2048, 2048).triu(1).bool()).all()), "a mask above the diagonal")
    else:
        check(atten_mask is None, "a mask for the default mode")
    out = torch.empty_like(query)
    start = 0
    for pages, end, length in zip(block_table.long(), actual_seq_lengths, actual_seq_lengths_kv, strict=True):
        check(length <= len(pages) * block_size, "a table as long as the sequence")
        q = query[start:end].float().transpose(0, 1)
        k, v = (
            t[pages]
            .flatten(0, 1)[:length]
            .unflatten(-1, (kv_heads, dim))
            .float()
            .transpose(0, 1)
            .repeat_interleave(heads // kv_heads, 0)
            for t in (key, value)
        )
        scores = q @ k.transpose(1, 2) * scale
        if sparse_mode == 3:
            last = torch.arange(length - (end - start), length)
            scores = scores.masked_fill(torch.arange(length) > last[:, None], -torch.inf)
        out[start:end] = (scores.softmax(-1) @ v).transpose(0, 1).to(query.dtype)
        start = end
    return out, torch.zeros(1)
