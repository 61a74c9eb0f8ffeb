"""How large a page of the key-value cache is (``xllmc/cache.h`` lays it out)."""

from .dtypes import ITEM_BYTES

PAGE_TOKENS = 32
"""Positions in one page, and in one block of attention's online softmax, so that paging never changes a bit."""


def page_bytes(kv_heads: int, key_dim: int, value_dim: int, dtype: str) -> int:
    """Of one page: keys, in pairs for bf16, then values."""
    keys = key_dim + key_dim % 2 if dtype == "bf16" else key_dim
    return kv_heads * (keys + value_dim) * PAGE_TOKENS * ITEM_BYTES[dtype]
