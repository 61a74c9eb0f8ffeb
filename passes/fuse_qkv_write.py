"""What stands between a fused projection and attention becomes one op, which reads the projection once."""

from .api import (
    Float,
    Int,
    Match,
    Number,
    Size,
    State,
    Tensor,
    Value,
    Values,
    Weight,
    example,
    ops,
    optional,
    rewrite,
    type_of,
)

INPUTS = {
    "y": "bf16[T, 96]",
    "state": "paged<0>bf16[1, 16, 16]",
    "slots": "i32[T]",
    "block_table": "i32[S, B]",
    "query_starts": "i32[S+1]",
    "positions": "i32[T]",
}


def attention(
    y: Value,
    state: Value,
    slots: Value,
    block_table: Value,
    query_starts: Value,
    positions: Value,
    table: Value | None = None,
    q_weight: Value | None = None,
    k_weight: Value | None = None,
    keys_first: bool = False,
) -> Value:
    """Four heads of 16 and one of keys and values, as models write them."""

    def heads(start: int, count: int, weight: Value | None) -> Value:
        part = ops.slice(y, axis=1, start=start, stop=start + 16 * count)
        part = ops.reshape(part, shape=(y.shape[0], count, 16))
        part = part if weight is None else ops.rms_norm(part, weight, eps=1e-6)
        return part if table is None else ops.rope(part, table)

    q, k = heads(16 if keys_first else 0, 4, q_weight), heads(0 if keys_first else 64, 1, k_weight)
    v = ops.reshape(ops.slice(y, axis=1, start=80, stop=96), shape=(y.shape[0], 1, 16))
    written = ops.kv_write(state, k, v, slots)
    return ops.paged_attention(q, written, block_table, query_starts, positions, scale=0.25)


@rewrite(
    stage="fused",
    numerics="reassociating",
    after="fuse-linears",
    through=("reshape",),
    landmark="paged_attention",
)
class FuseQKVWrite:
    """Heads of a projection, normed and rotated, stored and attended to   ==>   ``qkv_write``, then attention

        q = rope(rms_norm(slice(y, 0:Q), wq), table);  k = rope(rms_norm(slice(y, Q:K), wk), table);  v = slice(y, K:)
        s' = kv_write(s, k, v, slots);  paged_attention(q, s')
                  ==>      q, s' = qkv_write(y, table, wq, wk, s, slots);  paged_attention(q, s')

    Norms and rotation may both be absent.
    """

    def pattern(
        self,
        y: Float[Value, "T N"],
        state: State,
        slots: Int[Value, "T"],
        block_table: Tensor[Value, "..."],
        query_starts: Tensor[Value, "..."],
        positions: Tensor[Value, "..."],
        queries: Size,
        keys: Size,
        N: Size,
        scale: Number,
        window: Number,
        softcap: Number,
        table: Float[Value, "T R"] | None,
        q_weight: Weight[Value, "D"] | None,
        k_weight: Weight[Value, "D"] | None,
        eps: Number = 0.0,
    ) -> Values:
        def turned(start: Size, stop: Size, weight: Value | None) -> Value:
            part = ops.slice(y, axis=1, start=start, stop=stop)
            return optional(ops.rope, optional(ops.rms_norm, part, weight, eps=eps), table)

        k, v = turned(queries, keys, k_weight), ops.slice(y, axis=1, start=keys, stop=N)
        written = ops.kv_write(state, k, v, slots)
        attended = ops.paged_attention(
            turned(0, queries, q_weight), written, block_table, query_starts, positions,
            scale=scale, window=window, softcap=softcap,
        )  # fmt: skip
        return written, attended

    def when(self, m: Match) -> str | None:
        if (m.q_weight is None) != (m.k_weight is None):
            return "only one of queries and keys is normed"
        head = type_of(m.state)
        if m.q_weight is not None and head.key_dim != m.D:
            return f"the norm is over {m.D} elements, not over a head of {head}"
        return None

    def replacement(
        self,
        y: Value,
        state: Value,
        slots: Value,
        block_table: Value,
        query_starts: Value,
        positions: Value,
        queries: int,
        scale: float,
        window: int,
        softcap: float,
        table: Value | None,
        q_weight: Value | None,
        k_weight: Value | None,
        eps: float,
    ) -> Values:
        heads = queries // state.type.key_dim
        both = ops.qkv_write(y, table, q_weight, k_weight, state, slots, heads=heads, eps=eps)
        attended = ops.paged_attention(
            both[0], both[1], block_table, query_starts, positions, scale=scale, window=window, softcap=softcap
        )
        return both[1], attended

    examples = (
        example(
            lambda y, state, slots, block_table, query_starts, positions, table: attention(
                y, state, slots, block_table, query_starts, positions, table
            ),
            INPUTS,
            table="f32[T, 16]",
        ),
        example(
            lambda y, state, slots, block_table, query_starts, positions, table, q_weight, k_weight: attention(
                y, state, slots, block_table, query_starts, positions, table, q_weight, k_weight
            ),
            INPUTS,
            table="f32[T, 16]",
            q_weight="weight bf16[16]",
            k_weight="weight bf16[16]",
        ),
        example(
            lambda y, state, slots, block_table, query_starts, positions: attention(
                y, state, slots, block_table, query_starts, positions, keys_first=False
            ),
            INPUTS,
        ),
        example(
            lambda y, state, slots, block_table, query_starts, positions: attention(
                y, state, slots, block_table, query_starts, positions, keys_first=True
            ),
            INPUTS,
            rejects="has start 16, not 0",
        ),
        example(
            lambda y, state, slots, block_table, query_starts, positions, q_weight: attention(
                y, state, slots, block_table, query_starts, positions, None, q_weight
            ),
            INPUTS,
            q_weight="weight bf16[16]",
            rejects="eps",
        ),
    )
