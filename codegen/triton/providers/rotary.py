"""Rotary embeddings, and the writing of keys and values into pages: a token and a few of its heads a program.

Programs are small and many, as there is little to do for a token: about a thousand elements each.
"""

from typing import Any, NamedTuple

from ....compiler.ir.program import type_of
from ....compiler.ir.types import PagedType
from ....runtime.artifact.dtypes import ITEM_BYTES
from ....runtime.artifact.pages import PAGE_TOKENS, page_bytes
from ..kernel import Config, TritonCall, axis, power_of_two, width
from ..registering import provides

_ELEMENTS = 1024
"""Of a program."""
_ANGLES = 512


@provides("rope_table")
def rope_table(call: TritonCall) -> None:
    positions, inv_freq = call.node.args
    rows, half = call.rows(positions, trailing=0), width(inv_freq)
    block = power_of_two(half)
    tokens = max(_ANGLES // block, 1)
    call.launch(
        "rope_table",
        "rope_table.py.j2",
        {"positions": call.value(positions), "inv_freq": call.value(inv_freq), "out": call.result()},
        (axis(rows, tokens),),
        Config({"TOKENS": tokens, "BLOCK": block}, warps=4, stages=1),
        rows=call.count(rows),
        half=half,
        scale=float(call.node.kwargs["scale"]),
    )


@provides("rope")
def rope(call: TritonCall) -> None:
    x, table = call.node.args
    rows, heads = call.rows(x, trailing=2), type_of(x).shape[1]
    config = config_of(heads, width(x))
    call.launch(
        "rope",
        "rope.py.j2",
        {"x": call.value(x), "table": call.value(table), "out": call.result()},
        (axis(rows), axis(heads, config.tiles["HEADS"])),
        config,
        rows=call.count(rows),
        heads=heads,
        width=width(x),
        rotary=width(table),
        parts=parts_of(width(x), width(table)),
        normed=False,
    )


@provides("kv_write")
def kv_write(call: TritonCall) -> None:
    state, k, v, slots = call.node.args
    cache, rows = type_of(state), call.rows(k, trailing=2)
    config = config_of(cache.kv_heads, max(cache.key_dim, cache.value_dim))
    blocks = -(-cache.kv_heads // config.tiles["HEADS"])
    operands = {"state": call.value(state), "k": call.value(k), "v": call.value(v), "slots": call.value(slots)}
    call.launch(
        "kv_write",
        "kv_write.py.j2",
        operands,
        (axis(rows), axis(2 * blocks)),
        config,
        rows=call.count(rows),
        blocks=blocks,
        **page_layout(cache),
    )


@provides("qkv_write")
def qkv_write(call: TritonCall) -> None:
    qkv, table, q_weight, k_weight, state, slots = call.node.args
    cache, heads, rows = type_of(state), call.node.kwargs["heads"], call.rows(qkv)
    config = config_of(heads, max(cache.key_dim, cache.value_dim))
    query_blocks, blocks = (-(-count // config.tiles["HEADS"]) for count in (heads, cache.kv_heads))
    rotary = width(table) if table is not None else 0
    named = {"table": table, "q_weight": q_weight, "k_weight": k_weight}
    operands = {"qkv": call.value(qkv)} | {n: call.value(v) for n, v in named.items() if v is not None}
    operands |= {"slots": call.value(slots), "out": call.result(0), "state": call.value(state)}
    call.launch(
        "qkv_write",
        "qkv_write.py.j2",
        operands,
        (axis(rows), axis(query_blocks + 2 * blocks)),
        config,
        rows=call.count(rows),
        row_width=width(qkv),
        heads=heads,
        query_blocks=query_blocks,
        blocks=blocks,
        width=cache.key_dim,
        rotary=rotary,
        parts=parts_of(cache.key_dim, rotary),
        normed=q_weight is not None,
        eps=float(call.node.kwargs["eps"]),
        **page_layout(cache),
    )


class Part(NamedTuple):
    """A stretch of a head's row."""

    name: str
    start: int
    length: int

    @property
    def block(self) -> int:
        return power_of_two(self.length)


def parts_of(row: int, rotary: int) -> tuple[Part, ...]:
    """The halves of what is rotated, and the rest, as far as there are any."""
    half = rotary // 2
    found = (Part("low", 0, half), Part("high", half, half), Part("rest", rotary, row - rotary))
    return tuple(part for part in found if part.length)


def config_of(heads: int, dim: int) -> Config:
    """Heads of a program, and its warps: eight elements a thread."""
    block = power_of_two(dim)
    together = max(min(_ELEMENTS // block, power_of_two(heads)), 1)
    return Config({"HEADS": together, "BLOCK": block}, warps=min(max(together * block // 256, 1), 4), stages=1)


def page_layout(cache: PagedType) -> dict[str, Any]:
    """Constants of a state's pages, in elements."""
    return {
        "page_tokens": PAGE_TOKENS,
        "page_elements": page_bytes(cache.kv_heads, cache.key_dim, cache.value_dim, cache.dtype)
        // ITEM_BYTES[cache.dtype],
        "kv_heads": cache.kv_heads,
        "key_dim": cache.key_dim,
        "value_dim": cache.value_dim,
        "value_start": cache.kv_heads * PAGE_TOKENS * cache.key_dim,
    }
