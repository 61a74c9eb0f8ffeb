"""How long each kernel takes: launches outside of any graph, with an event between every two.

A kernel that is done before the host has launched the next one is charged with the host's time too: where kernels take
a few microseconds, their sum is above what a captured graph of them takes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda.bindings import driver

from .calls import call
from .device import Device
from .launches import BoundLaunch


class Stopwatch:
    """Events of one device, kept from one use to the next."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._events: list[Any] = []

    def run(self, launches: Sequence[BoundLaunch], total: int) -> np.ndarray:
        """Seconds of each of a function's ``total`` launches, f64; 0 for those that are not among ``launches``."""
        while len(self._events) <= len(launches):
            self._events.append(call(driver.cuEventCreate, int(driver.CUevent_flags.CU_EVENT_DEFAULT)))
            self._device.owns(driver.cuEventDestroy, self._events[-1])
        stream = self._device.stream
        call(driver.cuEventRecord, self._events[0], stream)
        for launch, event in zip(launches, self._events[1:], strict=False):
            launch.enqueue(stream)
            call(driver.cuEventRecord, event, stream)
        self._device.synchronize()
        seconds = np.zeros(total)
        for launch, before, after in zip(launches, self._events, self._events[1:], strict=False):
            seconds[launch.index] = call(driver.cuEventElapsedTime, before, after) / 1e3
        return seconds
