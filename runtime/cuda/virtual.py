"""Memory that has all its addresses at once, and takes from the device only what is used of it."""

from contextlib import suppress

from cuda.bindings import driver

from .calls import DriverError, OutOfMemoryError, call, give_back
from .device import Device

_AHEAD = 8
"""A range that grows takes an eighth more than it needs, so that long ones grow seldom."""


class VirtualRange:
    """``size`` bytes of addresses; graphs may hold them before any memory is behind them. ``grow`` maps memory from the
    start on, in pieces of 2 MB or more (CUDA driver API, virtual memory management).
    """

    def __init__(self, device: Device, size: int, what: str) -> None:
        """``what`` it is for, in errors."""
        self._device = device
        self._what = what
        self._properties = _properties()
        minimum = driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        self._piece = int(call(driver.cuMemGetAllocationGranularity, self._properties, minimum))
        self.size = self._whole(max(size, 1))
        self.address = int(call(driver.cuMemAddressReserve, self.size, self._piece, 0, 0))
        device.owns(driver.cuMemAddressFree, self.address, self.size)
        self._pieces: list[tuple[int, int]] = []
        device.owns(self._unmap)
        self.mapped = 0
        """Bytes from the start that have memory."""

    def grow(self, size: int) -> None:
        """See that the first ``size`` bytes have memory; what had some before keeps its content. OptionError where the
        device has no more.
        """
        if size <= self.mapped:
            return
        if size > self.size:
            raise ValueError(f"{self._what} end at {self.size} bytes, asked for {size}")
        needed = self._whole(size)
        ahead = min(self.size, max(needed, self.mapped + self._whole(self.mapped // _AHEAD)))
        if ahead > needed:
            with suppress(OutOfMemoryError):
                self._map(ahead - self.mapped)
                return
        try:
            self._map(needed - self.mapped)
        except OutOfMemoryError as problem:
            raise self._device.no_room(self._what, needed - self.mapped) from problem

    def _map(self, size: int) -> None:
        address = self.address + self.mapped
        handle = call(driver.cuMemCreate, size, self._properties, 0)
        try:
            call(driver.cuMemMap, address, size, 0, handle, 0)
        finally:
            # What is mapped is kept until it is unmapped.
            give_back(driver.cuMemRelease, handle)
        try:
            call(driver.cuMemSetAccess, address, size, [_access()], 1)
        except DriverError:
            give_back(driver.cuMemUnmap, address, size)
            raise
        self._pieces.append((address, size))
        self.mapped += size

    def _unmap(self) -> None:
        for address, size in self._pieces:
            give_back(driver.cuMemUnmap, address, size)

    def _whole(self, size: int) -> int:
        return -(-size // self._piece) * self._piece


def _properties() -> driver.CUmemAllocationProp:
    properties = driver.CUmemAllocationProp()
    properties.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.location = _location()
    return properties


def _access() -> driver.CUmemAccessDesc:
    access = driver.CUmemAccessDesc()
    access.location = _location()
    access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    return access


def _location() -> driver.CUmemLocation:
    location = driver.CUmemLocation()
    location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    location.id = 0
    return location
