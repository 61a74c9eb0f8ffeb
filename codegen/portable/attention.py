"""Paged attention for all tokens of a step at once, without a loop over data.

Every sequence's pages are gathered through its block table, all sequences' positions lie side by side, and a mask lets
each token see its own sequence up to itself. That computes T x S*C scores, C being the positions that B columns of the
block table hold: exact work for one sequence, S times as much as needed for S of equal length.
"""

import torch

from ...compiler.ops.attention import PagedCache
from ...runtime.artifact.pages import PAGE_TOKENS
from .form import portable

Tensor = torch.Tensor


@portable("paged_attention")
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
    """What the op ``paged_attention`` gives, of the same operands.

    Pages that the block table says are gone (-1), and columns beyond a sequence's end, may hold anything but are not
    seen. An infinite key or value within a sequence spoils its step's other sequences too, unlike in the reference.
    """
    tokens, heads, key_dim = q.shape
    kv_heads, value_dim = state.values.shape[1:]
    slots = torch.arange(PAGE_TOKENS) + block_table.long().clamp(min=0).unsqueeze(-1) * PAGE_TOKENS
    sequences, columns = block_table.shape
    context = columns * PAGE_TOKENS
    mask = visible(block_table, query_starts, positions, ancestors, window).reshape(tokens, sequences * context)
    held = mask.any(0)  # what nobody sees may be memory that was never written: zero times that is not always zero

    def read(cache: Tensor) -> Tensor:
        return torch.where(held[:, None, None], cache[slots.flatten()].float(), 0.0)

    grouped = q.float().reshape(tokens, kv_heads, heads // kv_heads, key_dim)
    scores = torch.einsum("tngd,snd->ngts", grouped, read(state.keys)) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    weights = torch.where(mask, scores, -torch.inf).softmax(-1)
    out = torch.einsum("ngts,snd->tngd", weights, read(state.values))
    return out.reshape(tokens, heads, value_dim).to(q.dtype)


def visible(
    block_table: Tensor, query_starts: Tensor, positions: Tensor, ancestors: Tensor | None, window: int
) -> Tensor:
    """bool [T, S, C]: whether a token sees a sequence's position."""
    sequences = block_table.shape[0]
    # By narrow: sizes of query_starts[:-1] would be known as (S + 1) - 1, and guarded against being 1.
    starts, ends = query_starts.narrow(0, 0, sequences), query_starts.narrow(0, 1, sequences)
    order = torch.arange(positions.shape[0])[:, None]
    own = (starts[None, :] <= order) & (order < ends[None, :])
    place = torch.arange(block_table.shape[1] * PAGE_TOKENS)[None, :]
    last = positions.long()[:, None]
    near = place > last - window if window else place >= 0
    if ancestors is None:
        seen = near & (place <= last)
    else:
        firsts = positions[starts.long().clamp(max=positions.shape[0] - 1)]
        node = place - of_owner(own, firsts)
        seen = (near & (node < 0)) | named(ancestors, node, of_owner(own, ends - starts))
    return own[:, :, None] & seen[:, None, :]


def of_owner(own: Tensor, values: Tensor) -> Tensor:
    """i64 [T, 1]: of a number per sequence, that of each token's own. own: bool [T, S]."""
    return torch.where(own, values.long()[None, :], 0).sum(1, keepdim=True)


def named(ancestors: Tensor, node: Tensor, count: Tensor) -> Tensor:
    """bool [T, C]: whether ``node`` is one of the tree's ``count`` and its bit is set in the token's words."""
    width = ancestors.shape[1] * 32
    inside = (node >= 0) & (node < count) & (node < width)
    bit = node.clamp(min=0, max=width - 1)
    words = ancestors.long().gather(1, bit // 32)
    return inside & (((words >> (bit % 32)) & 1) == 1)
