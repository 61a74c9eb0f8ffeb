"""Paged attention at once for all tokens gives what the reference gives token by token."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from xllmc.codegen.portable.attention import paged_attention
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.ops import OPS
from xllmc.compiler.ops.attention import PagedCache
from xllmc.runtime.artifact.pages import PAGE_TOKENS

REFERENCE = OPS["paged_attention"].reference


def cases(rng: np.random.Generator, spans: list[tuple[int, int]], heads: tuple[int, int, int, int]) -> dict:
    """Operands for sequences of (positions they have, tokens they add); what nobody may see is not a number."""
    kv_heads, group, key_dim, value_dim = heads
    columns = max((past + new - 1) // PAGE_TOKENS + 1 for past, new in spans) + 1
    pages = rng.permutation(len(spans) * columns + 1)
    table = pages[1:].reshape(len(spans), columns)
    caches = [np.full((len(pages) * PAGE_TOKENS, kv_heads, dim), np.nan, np.float32) for dim in (key_dim, value_dim)]
    for row, (past, new) in zip(table, spans, strict=True):
        seen = np.arange(past + new)
        slots = row[seen // PAGE_TOKENS] * PAGE_TOKENS + seen % PAGE_TOKENS
        for cache in caches:
            cache[slots] = rng.standard_normal((len(slots), *cache.shape[1:]), np.float32)
        row[(past + new - 1) // PAGE_TOKENS + 1 :] = rng.choice([-1, pages[0]])
    positions = np.concatenate([np.arange(past, past + new) for past, new in spans])
    q = rng.standard_normal((len(positions), kv_heads * group, key_dim), np.float32)
    operands = (table, np.cumsum([0, *(new for _, new in spans)]), positions)
    integers = [torch.from_numpy(np.ascontiguousarray(o, np.int32)) for o in operands]
    return {"q": torch.from_numpy(q), "state": PagedCache(*map(torch.from_numpy, caches)), "rest": integers}


def both(case: dict, *ancestors: torch.Tensor, **attributes: float) -> tuple[torch.Tensor, torch.Tensor]:
    operands = (case["q"], case["state"], *case["rest"], *ancestors)
    return REFERENCE(*operands, **attributes), paged_attention(*operands, **attributes)


@settings(max_examples=40)
@given(
    spans=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 6)), min_size=1, max_size=3),
    heads=st.tuples(st.integers(1, 2), st.integers(1, 3), st.sampled_from([4, 8]), st.sampled_from([4, 6])),
    window=st.sampled_from([0, 1, 5, 32, 33]),
    softcap=st.sampled_from([0.0, 1.5]),
    seed=st.integers(0, 1000),
)
def test_sequences_chunks_windows_and_caps(spans, heads, window, softcap, seed):
    case = cases(np.random.default_rng(seed), spans, heads)
    expected, got = both(case, scale=0.4, window=window, softcap=softcap)
    assert relative_error(expected, got) < 1e-5


@settings(max_examples=25)
@given(
    spans=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=2),
    window=st.sampled_from([0, 7]),
    seed=st.integers(0, 1000),
)
def test_trees_of_tokens_see_their_ancestors(spans, window, seed):
    rng = np.random.default_rng(seed)
    case = cases(rng, spans, (1, 2, 4, 4))
    words = rng.integers(0, 2, (len(case["q"]), 2, 32))
    table, starts, positions = case["rest"]
    depth = positions.clone()
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        for node in range(end - begin):
            words[begin + node, node // 32, node % 32] = 1
            depth[begin + node] = positions[begin] + (0 if node == 0 else rng.integers(1, node + 1))
    case["rest"] = [table, starts, depth]
    packed = (words.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)
    expected, got = both(case, torch.from_numpy(packed), scale=0.5, window=window)
    assert relative_error(expected, got) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_rounded_once(dtype):
    case = cases(np.random.default_rng(0), [(33, 3), (0, 2)], (2, 2, 8, 8))
    narrow = PagedCache(case["state"].keys.to(dtype), case["state"].values.to(dtype))
    expected, got = both(case | {"q": case["q"].to(dtype), "state": narrow}, scale=0.4)
    assert got.dtype == dtype and relative_error(expected, got) <= 2**-7


def test_a_sequence_without_tokens_changes_nothing():
    case = cases(np.random.default_rng(1), [(5, 2)], (1, 1, 4, 4))
    table, _, positions = case["rest"]
    expected, _ = both(case, scale=1.0)
    padded = [table.repeat(2, 1), torch.tensor([0, 2, 2], dtype=torch.int32), positions]
    assert relative_error(expected, paged_attention(case["q"], case["state"], *padded, scale=1.0)) < 1e-6
