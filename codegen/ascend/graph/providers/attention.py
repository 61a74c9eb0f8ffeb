"""Paged attention: torch_npu's operator where it can be exact, plain torch elsewhere."""

from .....compiler.ir.types import PagedType
from ..call import NpuCall, provides
from ..carried import causal_mask, causal_view, plain_attention, rows_of_sequences, sequence_of, tree_view
from ..schemas import Lengths, Value

PAGE_TOKENS = 128
"""Positions in a page: the least, and a divisor of all, that the operator takes for more than one query a sequence."""


@provides("paged_attention")
def paged_attention(call: NpuCall) -> None:
    table = call.writer.share("block_table", f"{call.tensor(2)}.clamp(min=0)")  # -1 is where no page is needed any more
    if why := unfit(call):
        call.plainly(why)
        call.give(plain(call, table))
    else:
        call.give(fused(call, table))


def plain(call: NpuCall, table: Value) -> Value:
    """What tells sequences and places apart is the same for all layers of a kind, and computed once."""
    share, cache = call.writer.share, call.cache(1)
    starts, positions, ancestors = call.tensor(3), call.tensor(4), call.optional(5)
    tokens, places = f"{positions}.shape[0]", f"{table}.shape[1] * PAGE_TOKENS"
    window = call.attribute("window")
    sequence = share("sequence", call.helper(sequence_of, starts, positions))
    rows = share("rows", call.helper(rows_of_sequences, starts, "step.most", tokens))
    if ancestors:
        view = call.helper(tree_view, rows, positions, starts, ancestors, places, window)
    else:
        view = call.helper(causal_view, rows, positions, places, window)
    return call.helper(
        plain_attention,
        *(call.tensor(0), cache.keys, cache.values, table, rows, share("view", view), sequence, starts),
        *(call.attribute("scale"), call.attribute("softcap")),
    )


def unfit(call: NpuCall) -> str:
    """Why the operator does not compute this call, or nothing."""
    q, state = call.type(0), call.type(1)
    assert isinstance(state, PagedType)
    heads, dim = q.shape[1:]
    if call.optional(5):
        return "the operator knows trees in latent attention alone"
    if call.attribute("softcap"):
        return "the operator has no soft cap"
    if call.attribute("window"):
        return "the operator's documentation leaves open what a window is where a sequence has one query"
    if q.dtype not in ("bf16", "f16"):
        return f"the operator takes bf16 and f16, not {q.dtype}"
    if state.key_dim != state.value_dim or dim % 16 or dim > 512:
        return "the operator takes keys and values of one size, a multiple of 16 up to 512"
    if heads > 256 or heads > 64 * state.kv_heads or state.kv_heads * dim > 65535:
        return "the operator takes up to 256 heads, 64 for one of keys, and 65535 elements of keys a token"
    return ""


def fused(call: NpuCall, table: Value) -> Value:
    """All sequences in one call, queries one after the other (``TND``), the causal mask aligned to the last position.

    The host gives the lengths: where queries end, cumulated, and how many positions each sequence has.
    """
    state, cache = call.type(1), call.cache(1)
    mask = call.writer.weight("causal mask", f"{call.helper(causal_mask, 'device')}")
    out, _ = call.results_of(
        "npu_fused_infer_attention_score",
        ("attended", None),
        Value(f"{call.tensor(0)}.contiguous()"),
        Value(f"{cache.keys}.flatten(2)"),
        Value(f"{cache.values}.flatten(2)"),
        atten_mask=mask,
        actual_seq_lengths=Lengths("step.query_ends"),
        actual_seq_lengths_kv=Lengths("step.kv_lengths"),
        block_table=table,
        num_heads=call.type(0).shape[1],
        num_key_value_heads=state.kv_heads,
        scale=call.attribute("scale"),
        input_layout="TND",
        sparse_mode=3,
        block_size=PAGE_TOKENS,
    )
    return out
