"""Where the elements of one token are in a page, written down from ``xllmc/cache.h`` anew, one element at a time."""

from collections.abc import Mapping

import numpy as np
from xllmc.runtime.artifact.dtypes import ITEM_BYTES
from xllmc.runtime.artifact.schema import StateEntry


def state_entry(
    name: str, group: int, page_tokens: int, dtype: str, heads: int, key_dim: int, value_dim: int
) -> StateEntry:
    """A paged state of these dimensions."""
    return StateEntry(
        name=name,
        kind="paged",
        group=group,
        kv_heads=heads,
        key_dim=key_dim,
        value_dim=value_dim,
        dtype=dtype,
        page_bytes=heads * (key_dim + value_dim) * page_tokens * ITEM_BYTES[dtype],
    )


class TokenView:
    """Reads and writes whole tokens of one state, by slot."""

    def __init__(self, memory: Mapping[str, np.ndarray], state: StateEntry, page_tokens: int) -> None:
        self._items = memory[state.name].view(f"u{ITEM_BYTES[state.dtype]}")
        self._page_tokens = page_tokens
        self._page_items = state.page_bytes // ITEM_BYTES[state.dtype]
        pair = 2 if state.dtype == "bf16" else 1
        self._places = np.array(
            [
                [
                    (h * state.key_dim + d - d % pair) * page_tokens + place * pair + d % pair
                    for h in range(state.kv_heads)
                    for d in range(state.key_dim)
                ]
                + [
                    (state.kv_heads * state.key_dim + h * state.value_dim) * page_tokens + place * state.value_dim + d
                    for h in range(state.kv_heads)
                    for d in range(state.value_dim)
                ]
                for place in range(page_tokens)
            ]
        )

    def write(self, slot: int, value: int) -> None:
        """Elements that differ from each other and from those of other values."""
        self._items[self._elements(slot)] = self._pattern(value)

    def holds(self, slot: int, value: int) -> bool:
        """Whether ``write`` of this value was the last thing that happened to the slot's content."""
        return bool((self._items[self._elements(slot)] == self._pattern(value)).all())

    def read(self, slot: int) -> bytes:
        """All its elements."""
        return self._items[self._elements(slot)].tobytes()

    def _elements(self, slot: int) -> np.ndarray:
        page, place = divmod(slot, self._page_tokens)
        elements: np.ndarray = page * self._page_items + self._places[place]
        return elements

    def _pattern(self, value: int) -> np.ndarray:
        count = self._places.shape[1]
        return ((value * 64 + np.arange(count)) % (1 << 16)).astype(self._items.dtype)
