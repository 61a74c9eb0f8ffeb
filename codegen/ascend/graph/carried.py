"""Functions that a generated module carries as they stand here, so they may name nothing but torch and each other.

All of them can be captured in a graph: shapes follow from shapes and from ``most`` alone, and no value comes to the
host.
"""

import torch
from torch import Tensor


def halves(weight: Tensor, gated: int) -> Tensor:
    """Gate and up rows of a gated linear, one after the other, from rows that alternate in blocks of 16.

    weight: [2 * ceil(gated / 16) * 16, K]; result: [2 * gated, K], without the rows that padded the blocks.
    """
    return torch.cat([rows.flatten(0, 1)[:gated] for rows in weight.unflatten(0, (-1, 2, 16)).unbind(1)])


def causal_mask(device: torch.device | str) -> Tensor:
    """bool [2048, 2048], true above the diagonal: the mask that the attention operator wants for sparse modes 2 to 4,
    whatever the lengths are.
    """
    return torch.ones(2048, 2048, dtype=torch.bool, device=device).triu(1)


def sequence_of(query_starts: Tensor, tokens: Tensor) -> Tensor:
    """i64 [T]: the sequence that each token is of. query_starts: i32 [S + 1]; tokens: any tensor [T, ...]."""
    places = torch.arange(tokens.shape[0], dtype=query_starts.dtype, device=query_starts.device)
    return torch.searchsorted(query_starts[1:].contiguous(), places, right=True)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x, f32 [T, heads, D], with its two halves rotated against each other; cos, sin: f32 [1, T, 1, D]."""
    low, high = x.chunk(2, -1)
    return x * cos[0] + torch.cat([-high, low], -1) * sin[0]


def rows_of_sequences(query_starts: Tensor, most: int, tokens: int) -> Tensor:
    """i64 [S, most]: the tokens of each sequence, and behind its last one some others, of no meaning."""
    rows = query_starts[:-1, None].long() + torch.arange(most, device=query_starts.device)
    return rows.clamp(max=tokens - 1)


def causal_view(rows: Tensor, positions: Tensor, places: int, window: int) -> Tensor:
    """bool [S, most, places]: whether a query sees a place: none behind it, of ``window`` > 0 the last ones alone.

    rows: of ``rows_of_sequences``; positions: i32 [T].
    """
    at, place = positions[rows][..., None], torch.arange(places, device=rows.device)
    return (place <= at) & (place > at - window) if window else place <= at


def tree_view(
    rows: Tensor, positions: Tensor, query_starts: Tensor, ancestors: Tensor, places: int, window: int
) -> Tensor:
    """The same where tokens of a step are nodes of trees, each behind what its sequence had before.

    ancestors: i32 [T, W], the nodes that a node sees, as bits; what was before is seen but for ``window`` > 0.
    """
    place = torch.arange(places, device=rows.device)
    start = positions[rows[:, 0]][:, None, None]
    before = place < start
    if window:
        before = before & (place > positions[rows][..., None] - window)
    node, words = place - start, ancestors[rows]
    count = query_starts.diff()[:, None, None].clamp(max=32 * words.shape[-1])
    word = (node // 32).clamp(0, words.shape[-1] - 1).expand(*rows.shape, places)
    named = words.gather(-1, word) >> (node % 32) & 1 == 1
    return before | (named & (node >= 0) & (node < count))


def plain_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    block_table: Tensor,
    rows: Tensor,
    view: Tensor,
    sequence: Tensor,
    query_starts: Tensor,
    scale: float,
    softcap: float,
) -> Tensor:
    """Attention over pages in plain torch: sequences side by side, queries padded to ``most``, float32 inside.

    q: [T, heads, D]; keys, values: [pages, PAGE_TOKENS, kv_heads, dim]; block_table: [S, B], of pages that exist; rows
    [S, most], view [S, most, B * PAGE_TOKENS] and sequence [T]: of the functions above. Takes memory for
    S * heads * most * B * PAGE_TOKENS float32 scores.
    """
    kv_heads, most = keys.shape[2], rows.shape[1]
    k = keys[block_table].flatten(1, 2).permute(0, 2, 3, 1).float()
    v = values[block_table].flatten(1, 2).transpose(1, 2).float()
    padded = q[rows].unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).float()
    scores = padded.flatten(2, 3) @ k * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.unflatten(2, (-1, most)).masked_fill(~view[:, None, None], -torch.inf)
    out = (scores.softmax(-1).flatten(2, 3) @ v).unflatten(2, (-1, most)).permute(0, 3, 1, 2, 4).flatten(2, 3)
    place = torch.arange(q.shape[0], device=q.device) - query_starts[sequence]
    return out[sequence, place].to(q.dtype)
