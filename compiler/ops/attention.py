"""Paged attention: writing keys and values into pages, and reading them by position.

The cache of a layer is a state (``PagedType``). An op that changes it returns the changed state, and readers take that
value, so the order of writes and reads is a chain of values. The reference state is ``PagedCache``.

A slot is ``page * PAGE_TOKENS + offset``. ``slots``: i32[T], where each token's key and value go. ``block_table``:
i32[S, B], the pages of each sequence in order. ``query_starts``: i32[S+1], where each sequence's tokens begin.
"""

from dataclasses import dataclass, replace

import torch

from ...runtime.artifact.dtypes import ITEM_BYTES
from ...runtime.artifact.pages import PAGE_TOKENS
from ..ir.dims import product, symbol
from ..ir.op import Cost, Traits
from ..ir.polynomial import Polynomial
from ..ir.types import PagedType, TensorType, TupleType
from .norm import rms_norm
from .registry import EXACT, ROUNDED, op
from .rope import rope
from .typing import EFFORT, elements, require, traffic

Tensor = torch.Tensor


@dataclass
class PagedCache:
    """Reference state. keys: [slots, kv_heads, key_dim]; values: [slots, kv_heads, value_dim]."""

    keys: Tensor
    values: Tensor


@op("kv_write", Traits(mutates=0, same_bits=True), EXACT)
def kv_write(state: PagedCache, k: Tensor, v: Tensor, slots: Tensor) -> PagedCache:
    """Store keys and values at their slots; returns the changed state.

    k: [T, kv_heads, key_dim]; v: [T, kv_heads, value_dim], of the state's dtype; slots: i32[T].
    """
    state.keys[slots.long()] = k.to(state.keys.dtype)
    state.values[slots.long()] = v.to(state.values.dtype)
    return state


@kv_write.fake
def _(state: PagedType, k: TensorType, v: TensorType, slots: TensorType) -> PagedType:
    tokens = slots.shape[0]
    require(k.shape == (tokens, state.kv_heads, state.key_dim), f"kv_write into {state} got keys {k}")
    require(v.shape == (tokens, state.kv_heads, state.value_dim), f"kv_write into {state} got values {v}")
    require(k.dtype == v.dtype == state.dtype, f"kv_write into {state} got keys {k} and values {v}")
    return state


@kv_write.cost
def _(state: PagedType, k: TensorType, v: TensorType, slots: TensorType) -> Cost:
    return traffic([k, v, slots], TupleType((k, v)), tasks=slots.shape[0] * state.kv_heads)


@op("paged_attention", tolerance=ROUNDED)
def paged_attention(
    q: Tensor,
    state: PagedCache,
    block_table: Tensor,
    query_starts: Tensor,
    positions: Tensor,
    ancestors: Tensor | None = None,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
) -> Tensor:
    """Causal attention of each token over its own sequence's positions up to its own.

    q: [T, heads, key_dim], heads a multiple of kv_heads; positions: i32[T], of each token in its sequence; result:
    [T, heads, value_dim]. Scores are ``scale * q @ k``. ``window`` > 0: the last ``window`` positions, its own
    included. ``softcap`` > 0: scores become ``softcap * tanh(scores / softcap)`` (Gemma 2). float32 inside.

    ``ancestors``: i32[T, W], words of bits, or None. With it, the tokens that a sequence has in this step are the nodes
    0, 1, ... of a tree, in order, stored one behind the other from the place ``start`` on, which is the position of the
    first. Siblings share a position, so it no longer says where a token is stored. A token attends to the places before
    ``start``, of which ``window`` hides those too far from its position, and to the nodes whose bit (j % 32 of word
    j // 32) is set in its row: its ancestors and itself. The words alone tell of nodes, whatever the window is.
    """
    out = q.new_zeros(*q.shape[:2], state.values.shape[-1])
    group = q.shape[1] // state.keys.shape[1]
    for s in range(block_table.shape[0]):
        for t in range(int(query_starts[s]), int(query_starts[s + 1])):
            last = int(positions[t])
            end = last + 1 if ancestors is None else int(positions[query_starts[s]])
            seen = torch.arange(min(max(0, last - window + 1), end) if window else 0, end)
            if ancestors is not None:
                seen = torch.cat([seen, end + _nodes(ancestors[t], int(query_starts[s + 1] - query_starts[s]))])
            slots = block_table[s, seen // PAGE_TOKENS].long() * PAGE_TOKENS + seen % PAGE_TOKENS
            k = state.keys[slots].float().repeat_interleave(group, 1)
            v = state.values[slots].float().repeat_interleave(group, 1)
            scores = torch.einsum("hd,khd->hk", q[t].float(), k) * scale
            if softcap:
                scores = softcap * torch.tanh(scores / softcap)
            out[t] = torch.einsum("hk,khd->hd", scores.softmax(-1), v).to(q.dtype)
    return out


def _nodes(words: Tensor, count: int) -> Tensor:
    """Which of ``count`` nodes a row of ``ancestors`` names."""
    node = torch.arange(min(count, 32 * len(words)))
    return node[(words[node // 32] >> node % 32) & 1 == 1]


@paged_attention.fake
def _(
    q: TensorType,
    state: PagedType,
    block_table: TensorType,
    query_starts: TensorType,
    positions: TensorType,
    ancestors: TensorType | None = None,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
) -> TensorType:
    require(len(q.shape) == 3 and q.shape[2] == state.key_dim, f"attention over {state} got queries {q}")
    heads = q.shape[1]
    require(
        isinstance(heads, int) and heads % state.kv_heads == 0,
        f"attention requires num_heads to be a multiple of num_kv_heads, got {heads} and {state.kv_heads}",
    )
    if ancestors is not None:
        words = ancestors.shape[1] if len(ancestors.shape) == 2 else None
        fits = ancestors.dtype == "i32" and ancestors.shape[0] == q.shape[0] and isinstance(words, int)
        require(fits, f"attention requires ancestors i32[{q.shape[0]}, W], W a fixed number of words, got {ancestors}")
    return q.with_shape(q.shape[0], heads, state.value_dim)


@paged_attention.cost
def _(
    q: TensorType,
    state: PagedType,
    block_table: TensorType,
    *operands: TensorType | None,
    scale: float,
    window: int = 0,
    softcap: float = 0,
) -> Cost:
    tokens, heads = q.shape[:2]
    seen = symbol(f"C@{window}" if window else "C")
    result = q.with_shape(tokens, heads, state.value_dim)
    per_position = state.kv_heads * (state.key_dim + state.value_dim) * ITEM_BYTES[state.dtype]
    score = 2 * (state.key_dim + state.value_dim) + EFFORT["exp"] + (EFFORT["tanh"] if softcap else 0)
    # Pages are visited as a whole: half a page more than is seen, on average.
    visited = Polynomial.of(seen) + PAGE_TOKENS // 2
    moved = traffic([q, block_table, *operands], result, score * visited * product((tokens, heads)))
    pages = Polynomial.of(block_table.shape[0]) * seen * per_position
    return replace(moved, streamed=moved.streamed + pages, tasks=Polynomial.of(tokens) * state.kv_heads)


@op("qkv_write", Traits(mutates=4), ROUNDED)
def qkv_write(
    qkv: Tensor,
    table: Tensor | None,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    state: PagedCache,
    slots: Tensor,
    *,
    heads: int,
    eps: float = 0.0,
) -> tuple[Tensor, PagedCache]:
    """Split one projection into heads, norm queries and keys, rotate them, store keys and values; returns queries.

    qkv: [T, heads*key_dim + kv_heads*(key_dim + value_dim)]; table: f32[T, D] of ``rope_table`` or None; q_weight,
    k_weight: [key_dim] of per-head ``rms_norm`` with ``eps``, or both None. ``heads``: of queries. float32
    inside, rounded once.
    """
    kv_heads, dim = state.keys.shape[1:]
    parts = qkv.float().split([heads * dim, kv_heads * dim, kv_heads * state.values.shape[2]], -1)
    q, k, v = (p.unflatten(-1, (h, -1)) for p, h in zip(parts, (heads, kv_heads, kv_heads), strict=True))
    if q_weight is not None and k_weight is not None:
        q, k = rms_norm(q, q_weight.float(), eps=eps), rms_norm(k, k_weight.float(), eps=eps)
    if table is not None:
        q, k = rope(q, table), rope(k, table)
    return q.to(qkv.dtype), kv_write(state, k, v, slots)


@qkv_write.fake
def _(
    qkv: TensorType,
    table: TensorType | None,
    q_weight: TensorType | None,
    k_weight: TensorType | None,
    state: PagedType,
    slots: TensorType,
    *,
    heads: int,
    eps: float = 0.0,
) -> TupleType:
    width = heads * state.key_dim + state.kv_heads * (state.key_dim + state.value_dim)
    require(qkv.shape == (slots.shape[0], width), f"qkv_write of {heads} heads into {state} got {qkv}")
    require((q_weight is None) == (k_weight is None), "qkv_write norms both queries and keys, or neither")
    return TupleType((qkv.with_shape(qkv.shape[0], heads, state.key_dim), state))


@qkv_write.cost
def _(
    qkv: TensorType,
    table: TensorType | None,
    q_weight: TensorType | None,
    k_weight: TensorType | None,
    state: PagedType,
    slots: TensorType,
    *,
    heads: int,
    eps: float = 0.0,
) -> Cost:
    per_element = 1 + (5 if q_weight else 0) + (3 if table else 0)
    all_heads = qkv.shape[0] * (heads + 2 * state.kv_heads)
    return traffic([qkv, table, q_weight, k_weight, slots], qkv, per_element * elements(qkv), tasks=all_heads)
