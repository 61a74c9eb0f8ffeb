"""Inputs whose length follows none of a step's sizes: the tokens that penalties look at, biases, masks."""

import numpy as np
from cuda.bindings import driver

from ..artifact.errors import OptionError
from .calls import call, give_back
from .device import Device, pin
from .virtual import VirtualRange


class GrowingInput:
    """An address that graphs hold, with as much memory behind it as the longest input needed, on host and device."""

    def __init__(self, device: Device, name: str, most: int) -> None:
        """``most``: bytes that it may have."""
        self._device = device
        self._name = name
        self._most = most
        self._range = VirtualRange(device, most, f"the sampling input {name}")
        self._staging: tuple[np.ndarray, int] = np.zeros(0, np.uint8), 0
        device.owns(self._free)
        # Kernels may look at the first element of an input that is empty.
        self._range.grow(1)

    @property
    def address(self) -> int:
        """On the device."""
        return self._range.address

    def check(self, values: np.ndarray) -> None:
        """Raise OptionError for more than it may have."""
        if values.nbytes > self._most:
            raise OptionError(
                f"{self._name} of a step may have {self._most} bytes in this engine, got {values.nbytes}; "
                "split the step, or load with more max_rows"
            )

    def reserve(self, values: np.ndarray) -> None:
        """See that there is room for them; no step may be running. Raises OptionError where there is none."""
        self._range.grow(values.nbytes)
        if values.nbytes > self._staging[0].size:
            self._free()
            self._staging = pin(max(values.nbytes, self._range.mapped), f"the sampling input {self._name}")

    def send(self, values: np.ndarray) -> None:
        """On the device's stream, what there is room for; no step may be running."""
        size = values.nbytes
        if not size:
            return
        staging, address = self._staging
        staging[:size] = values.reshape(-1).view(np.uint8)
        call(driver.cuMemcpyHtoDAsync, self.address, address, size, self._device.stream)

    def _free(self) -> None:
        if self._staging[1]:
            give_back(driver.cuMemFreeHost, self._staging[1])
        self._staging = np.zeros(0, np.uint8), 0
