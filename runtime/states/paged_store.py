"""The memory behind paged states, and how transfers are carried out in it: on the CPU, with numpy."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..artifact.dtypes import ITEM_BYTES
from ..artifact.schema import StateEntry
from ..memory import allocate
from .transfer import CopyPage, LoadPage, MoveTokens, StorePage, Transfer


class PagedStore:
    """The pages of every layer's state, and the host's other memory for pages that are stored away."""

    def __init__(
        self, states: Sequence[StateEntry], pages: Sequence[int], host_pages: Sequence[int], page_tokens: int
    ) -> None:
        """``pages``, ``host_pages``: by state group. Memory is taken from the system as it is touched."""
        self._page_tokens = page_tokens
        self._states = {state.name: state for state in states}
        self._pages = {s.name: _paged(pages[s.group], s.page_bytes) for s in states}
        self._host = {s.name: _paged(host_pages[s.group], s.page_bytes) for s in states}
        self._names = {group: [s.name for s in states if s.group == group] for group in range(len(pages))}

    @property
    def memory(self) -> Mapping[str, np.ndarray]:
        """State name to its pages, as bytes u8 [pages * page_bytes]."""
        return {name: pages.reshape(-1) for name, pages in self._pages.items()}

    def carry_out(self, transfers: Iterable[Transfer]) -> None:
        """One after the other, in all states of each one's group."""
        for transfer in transfers:
            for name in self._names[transfer.group]:
                pages, host = self._pages[name], self._host[name]
                match transfer:
                    case CopyPage(source=source, target=target):
                        pages[target] = pages[source]
                    case StorePage(page=page, slot=slot):
                        host[slot] = pages[page]
                    case LoadPage(slot=slot, page=page):
                        pages[page] = host[slot]
                    case MoveTokens(sources=sources, targets=targets):
                        self._move(name, sources, targets)

    def _move(self, name: str, sources: Sequence[int], targets: Sequence[int]) -> None:
        """The layout of a page is that of ``xllmc/cache.h``."""
        state, size = self._states[name], self._page_tokens
        pages = self._pages[name].view(f"u{ITEM_BYTES[state.dtype]}")
        pair = 2 if state.dtype == "bf16" and state.key_dim > 1 else 1
        keys_end = state.kv_heads * state.key_dim * size
        keys = pages[:, :keys_end].reshape(len(pages), state.kv_heads, -1, size, pair)
        values = pages[:, keys_end:].reshape(len(pages), state.kv_heads, size, state.value_dim)
        source_pages, source_places = np.divmod(np.array(sources), size)
        target_pages, target_places = np.divmod(np.array(targets), size)
        keys[target_pages, :, :, target_places] = keys[source_pages, :, :, source_places]
        values[target_pages, :, target_places] = values[source_pages, :, source_places]


def _paged(pages: int, page_bytes: int) -> np.ndarray:
    return allocate(pages * page_bytes).reshape(pages, page_bytes)
