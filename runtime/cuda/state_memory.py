"""The pages of paged states in device memory, and how transfers are carried out there.

A page holds keys [kv_heads, 32, key_dim], then values [kv_heads, 32, value_dim], as plain rows.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from cuda.bindings import driver

from ..artifact.dtypes import ITEM_BYTES
from ..artifact.schema import StateEntry
from ..states.transfer import CopyPage, LoadPage, MoveTokens, StorePage, Transfer
from .calls import call, give_back
from .device import Device
from .virtual import VirtualRange


class _Rows(NamedTuple):
    """Keys or values of a page: where they start, and of every head's row of one token."""

    start: int
    row_bytes: int


class StateMemory:
    """Every layer's pages at addresses of its own; pages take memory when a step first has them, for pools give out
    low pages first.
    """

    def __init__(
        self,
        device: Device,
        states: Sequence[StateEntry],
        pages: Sequence[int],
        host_pages: Sequence[int],
        page_tokens: int,
    ) -> None:
        """``pages``, ``host_pages``: by state group. Raises OptionError."""
        self._device = device
        self._states = {state.name: state for state in states}
        self._page_tokens = page_tokens
        self._names = {group: [s.name for s in states if s.group == group] for group in range(len(pages))}
        self._ranges = {
            s.name: VirtualRange(device, pages[s.group] * s.page_bytes, "the key-value states") for s in states
        }
        self._host = {
            s.name: int(device.pinned(host_pages[s.group] * s.page_bytes, "stored states").ctypes.data)
            for s in states
            if host_pages[s.group]
        }
        self._grown = [0] * len(pages)
        """Pages of each group that have memory."""
        self._lock = threading.Lock()
        self._scratch, self._scratch_size = 0, 0
        device.owns(self._free_scratch)

    @property
    def addresses(self) -> Mapping[str, int]:
        """Of each state's first page."""
        return {name: memory.address for name, memory in self._ranges.items()}

    @property
    def mapped_bytes(self) -> int:
        """Memory that pages have taken from the device."""
        return sum(memory.mapped for memory in self._ranges.values())

    def grow(self, pages: Sequence[int]) -> None:
        """See that so many pages of each group, from the first one on, have memory. May be called from any thread
        whose context is the device's. Raises OptionError where the device has no more.
        """
        if all(need <= grown for need, grown in zip(pages, self._grown, strict=True)):
            return
        with self._lock:
            # What was checked outside of the lock may be closed by now.
            self._device.check_open()
            for group, need in enumerate(pages):
                for name in self._names[group]:
                    self._ranges[name].grow(need * self._states[name].page_bytes)
                self._grown[group] = max(self._grown[group], need)

    def carry_out(self, transfers: Iterable[Transfer]) -> None:
        """One after the other on the device's stream, in all states of each one's group."""
        transfers = tuple(transfers)
        if not transfers:
            return
        with self._device.working(lambda: "transfers of states"):
            needs = [0] * len(self._names)
            for transfer in transfers:
                needs[transfer.group] = max(needs[transfer.group], *_pages_of(transfer, self._page_tokens))
            self.grow(needs)
            for transfer in transfers:
                for name in self._names[transfer.group]:
                    self._carry_out(transfer, name)

    def close(self) -> None:
        """Wait until nobody grows it; afterwards nobody does."""
        with self._lock:
            self._device.close()

    def _carry_out(self, transfer: Transfer, name: str) -> None:
        size, stream = self._states[name].page_bytes, self._device.stream
        base, host = self._ranges[name].address, self._host.get(name, 0)
        match transfer:
            case CopyPage(source=source, target=target):
                call(driver.cuMemcpyDtoDAsync, base + target * size, base + source * size, size, stream)
            case StorePage(page=page, slot=slot):
                call(driver.cuMemcpyDtoHAsync, host + slot * size, base + page * size, size, stream)
            case LoadPage(slot=slot, page=page):
                call(driver.cuMemcpyHtoDAsync, base + page * size, host + slot * size, size, stream)
            case MoveTokens(sources=sources, targets=targets):
                self._move(self._states[name], base, sources, targets)

    def _move(self, state: StateEntry, base: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Through scratch memory, for a target may be a later source."""
        token = state.kv_heads * (state.key_dim + state.value_dim) * ITEM_BYTES[state.dtype]
        scratch = self._scratch_of(token * len(sources))
        for slots, to_scratch in ((sources, True), (targets, False)):
            for i, slot in enumerate(slots):
                page, place = divmod(slot, self._page_tokens)
                packed = scratch + i * token
                for rows in _parts(state, self._page_tokens):
                    if not rows.row_bytes:
                        continue
                    paged = base + page * state.page_bytes + rows.start + place * rows.row_bytes
                    strided, dense = (paged, self._page_tokens * rows.row_bytes), (packed, rows.row_bytes)
                    source, target = (strided, dense) if to_scratch else (dense, strided)
                    self._copy_rows(source, target, rows.row_bytes, state.kv_heads)
                    packed += state.kv_heads * rows.row_bytes

    def _copy_rows(self, source: tuple[int, int], target: tuple[int, int], width: int, count: int) -> None:
        """``count`` rows of ``width`` bytes; ``source`` and ``target``: address and distance between two rows."""
        copy = driver.CUDA_MEMCPY2D()
        copy.srcMemoryType = copy.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.srcPitch = source
        copy.dstDevice, copy.dstPitch = target
        copy.WidthInBytes, copy.Height = width, count
        call(driver.cuMemcpy2DAsync, copy, self._device.stream)

    def _scratch_of(self, size: int) -> int:
        """``size`` bytes of any content, until the next call."""
        if size > self._scratch_size:
            self._device.synchronize()
            self._free_scratch()
            self._scratch = int(call(driver.cuMemAlloc, size))
            self._scratch_size = size
        return self._scratch

    def _free_scratch(self) -> None:
        if self._scratch_size:
            give_back(driver.cuMemFree, self._scratch)
        self._scratch, self._scratch_size = 0, 0


def _parts(state: StateEntry, page_tokens: int) -> tuple[_Rows, _Rows]:
    """Keys and values of a page."""
    item = ITEM_BYTES[state.dtype]
    keys = state.key_dim * item
    return _Rows(0, keys), _Rows(state.kv_heads * page_tokens * keys, state.value_dim * item)


def _pages_of(transfer: Transfer, page_tokens: int) -> tuple[int, ...]:
    """How many pages, from the first one on, it touches."""
    match transfer:
        case CopyPage(source=source, target=target):
            return (source + 1, target + 1)
        case StorePage(page=page) | LoadPage(page=page):
            return (page + 1,)
        case MoveTokens(sources=sources, targets=targets):
            return tuple(int(slot) // page_tokens + 1 for slot in np.concatenate([sources, targets, [-page_tokens]]))
