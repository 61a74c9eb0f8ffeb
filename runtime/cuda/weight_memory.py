"""An engine's weights in device memory: at addresses that captured graphs hold, so an update writes in place."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import numpy as np
from cuda.bindings import driver

from ..artifact.dtypes import ITEM_BYTES
from ..artifact.schema import Manifest, WeightEntry
from ..weights import Weights
from .calls import call, give_back
from .device import Device, pin
from .random_weights import BLOCK, random_block, random_kind

_ALIGNMENT = 256
"""Of every weight: kernels are compiled for 16, which a safetensors file cannot keep."""
_CHUNK = 32 << 20
"""Bytes that are brought into pinned memory at a time, while those before are on their way."""


class WeightMemory:
    """All weights, each at an address of its own."""

    def __init__(self, device: Device, manifest: Manifest) -> None:
        """Raises OptionError where the device has no room."""
        self._device = device
        self._entries = manifest.weights
        self._seed = manifest.random_weights
        sizes = [_bytes(entry) for entry in self._entries]
        places = np.cumsum([0, *(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)]).tolist()
        base = device.allocate(places[-1], "the weights")
        self.addresses: Mapping[str, int] = {
            entry.name: base + place for entry, place in zip(self._entries, places, strict=False)
        }

    def write(self, weights: Weights) -> None:
        """Copy them all, and wait for that. Random ones are made on the device."""
        random = [e for e in self._entries if self._seed is not None and e.recipe is not None]
        if self._seed is not None:
            self._write_random(random, self._seed)
        names = {entry.name for entry in random}
        self._send(weights, [entry for entry in self._entries if entry.name not in names])

    def _send(self, weights: Weights, entries: list[WeightEntry]) -> None:
        """Through two buffers of pinned memory in turn."""
        pieces = list(_pieces(self.addresses, weights, entries))
        size = min(_CHUNK, max((len(values) for _, values in pieces), default=0))
        with ExitStack() as opened:
            buffers = [_Buffer(size, opened) for _ in range(min(len(pieces), 2))]
            # The device may still read from the buffers when they are to be freed.
            opened.callback(give_back, driver.cuStreamSynchronize, self._device.stream)
            for number, (address, values) in enumerate(pieces):
                buffers[number % 2].send(self._device, address, values)
            self._device.synchronize()

    def _write_random(self, entries: list[WeightEntry], seed: int) -> None:
        """One block for each kind of weight is sent, and repeated on the device."""
        kinds: dict[tuple[str, bool], list[WeightEntry]] = {}
        for entry in entries:
            kinds.setdefault(random_kind(entry), []).append(entry)
        for same in kinds.values():
            longest = max(map(_bytes, same)) // ITEM_BYTES[same[0].dtype]
            values = random_block(same[0], seed, min(longest, BLOCK)).values.view(np.uint8)
            with ExitStack() as opened:
                block = call(driver.cuMemAlloc, max(values.size, 1))
                opened.callback(give_back, driver.cuMemFree, block)
                call(driver.cuMemcpyHtoDAsync, block, values.ctypes.data, values.size, self._device.stream)
                for entry in same:
                    end = self.addresses[entry.name] + _bytes(entry)
                    for address in range(self.addresses[entry.name], end, values.size):
                        size = min(values.size, end - address)
                        call(driver.cuMemcpyDtoDAsync, address, block, size, self._device.stream)
                self._device.synchronize()


class _Buffer:
    """Pinned memory, and the moment from which it may be written again."""

    def __init__(self, size: int, opened: ExitStack) -> None:
        """``opened`` frees it."""
        self._values, self._address = pin(size, "the buffers that weights are sent through")
        opened.callback(give_back, driver.cuMemFreeHost, self._address)
        self._sent = call(driver.cuEventCreate, int(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        opened.callback(give_back, driver.cuEventDestroy, self._sent)

    def send(self, device: Device, address: int, values: np.ndarray) -> None:
        call(driver.cuEventSynchronize, self._sent)
        self._values[: values.size] = values
        call(driver.cuMemcpyHtoDAsync, address, self._address, values.size, device.stream)
        call(driver.cuEventRecord, self._sent, device.stream)


def _pieces(
    addresses: Mapping[str, int], weights: Weights, entries: list[WeightEntry]
) -> Iterator[tuple[int, np.ndarray]]:
    """Device address and bytes, a chunk at most."""
    for entry in entries:
        held = weights.entries[entry.name]
        for start in range(held.start, held.stop, _CHUNK):
            stop = min(start + _CHUNK, held.stop)
            yield addresses[entry.name] + start - held.start, weights.memory[start:stop]


def _bytes(entry: WeightEntry) -> int:
    return int(np.prod(entry.shape, dtype=np.int64)) * ITEM_BYTES[entry.dtype]
