"""One GPU as an engine holds it: the primary context, a stream, and memory that is freed with it."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from cuda.bindings import driver

from ..artifact.errors import ArtifactError, DeviceError, OptionError
from ..library import closed
from ..machine import SHIPPED_DEVICES
from .calls import DriverError, MissingFunctionError, OutOfMemoryError, call, give_back

_ATTRIBUTE = driver.CUdevice_attribute


class Device:
    """The first GPU that this process sees (``CUDA_VISIBLE_DEVICES`` chooses).

    A context belongs to a thread: who calls the driver, calls ``activate`` first. ``close`` frees all, latest first.
    """

    def __init__(self, target: str) -> None:
        """``target``: ``cuda:sm_90``. Raises ArtifactError where this machine has no such GPU."""
        _start_driver(target)
        self._undo = ExitStack()
        self._fault: DeviceError | None = None
        self._closed = False
        self._own = threading.local()
        self._number = call(driver.cuDeviceGet, 0)
        self.name = call(driver.cuDeviceGetName, 128, self._number).split(b"\0")[0].decode()
        self._check_capability(target)
        with self._undoing():
            self.context = call(driver.cuDevicePrimaryCtxRetain, self._number)
            self._undo.callback(give_back, driver.cuDevicePrimaryCtxRelease, self._number)
            self.activate()
            self.stream = call(driver.cuStreamCreate, int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
            self.owns(driver.cuStreamDestroy, self.stream)

    def activate(self) -> None:
        """Let the calls of this thread be for this device."""
        if not getattr(self._own, "adopted", False):
            call(driver.cuCtxSetCurrent, self.context)

    def adopt_thread(self) -> None:
        """This thread calls no other device: it need not be activated again."""
        self.activate()
        self._own.adopted = True

    def owns(self, free: Callable[..., Any], *arguments: Any) -> None:
        """Call the driver's function ``free`` when the device is closed."""
        self._undo.callback(give_back, free, *arguments)

    def attribute(self, name: str) -> int:
        """Of the device, by the driver's name without its prefix: ``MULTIPROCESSOR_COUNT``."""
        return int(call(driver.cuDeviceGetAttribute, getattr(_ATTRIBUTE, f"CU_DEVICE_ATTRIBUTE_{name}"), self._number))

    def allocate(self, size: int, what: str) -> int:
        """The address of ``size`` bytes of any content, aligned to 256. OptionError where there is no room."""
        try:
            address = int(call(driver.cuMemAlloc, max(size, 1)))
        except OutOfMemoryError as problem:
            raise self.no_room(what, size) from problem
        self.owns(driver.cuMemFree, address)
        return address

    def pinned(self, size: int, what: str) -> np.ndarray:
        """Memory of the host that the device copies from and to by itself, u8 [size]. OptionError where there is no
        room.
        """
        values, address = pin(size, what)
        self.owns(driver.cuMemFreeHost, address)
        return values

    def free_bytes(self) -> int:
        """Memory that nobody has."""
        return int(call(driver.cuMemGetInfo)[0])

    def synchronize(self) -> None:
        """Wait for all that the stream was given."""
        call(driver.cuStreamSynchronize, self.stream)

    def check_open(self) -> None:
        """Raise OptionError after ``close``, DeviceError after a fault."""
        if self._closed:
            raise closed()
        if self._fault is not None:
            raise self._fault

    @contextmanager
    def working(self, what: Callable[[], str]) -> Iterator[None]:
        """Calls of this thread for the device. An error that is not a want of memory is the device's last: DeviceError
        says so now, with ``what`` was done, and at every later ``check_open``.
        """
        try:
            self.activate()
            yield
        except OutOfMemoryError as problem:
            # What was begun may still read pinned memory, which whoever comes next writes.
            give_back(driver.cuStreamSynchronize, self.stream)
            raise self.no_room(what()) from problem
        except DriverError as problem:
            self._fault = DeviceError(
                f"{self.name} failed while it ran {what()}: {problem}; the engine must be loaded again, in a new "
                "process if the device does not recover"
            )
            raise self._fault from problem

    def no_room(self, what: str, size: int | None = None) -> OptionError:
        """The error for memory that the device lacks. ``size``: of what it was asked for, if that is known."""
        wanted = "more device memory" if size is None else f"{size / 1e9:.2f} GB of device memory"
        return OptionError(
            f"{what} must have {wanted}, and {self.name} has {self.free_bytes() / 1e9:.2f} GB left; load the engine "
            "with smaller kv_tokens, max_tokens, max_rows or max_sequences, or end what else uses the device"
        )

    def close(self) -> None:
        """Free all; to be called once or more."""
        if self._closed:
            return
        self._closed = True
        give_back(driver.cuCtxSetCurrent, self.context)
        give_back(driver.cuStreamSynchronize, self.stream)
        self._undo.close()

    @contextmanager
    def _undoing(self) -> Iterator[None]:
        """Free what there is if the block fails."""
        with ExitStack() as failed:
            failed.callback(self._undo.close)
            yield
            failed.pop_all()

    def _check_capability(self, target: str) -> None:
        major, minor = (self.attribute(f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        wanted = target.partition("sm_")[2]
        if not wanted.isdecimal():
            raise ArtifactError(f"an engine's target must be like cuda:sm_90, got {target}; compile the engine again")
        # Machine code runs within its major version, from its own minor one on (CUDA programming guide).
        if major != int(wanted[:-1]) or minor < int(wanted[-1]):
            fitting = [name for name in SHIPPED_DEVICES if name[3:-1] == str(major) and int(name[-1]) <= minor]
            way_out = f"compile it with --target cuda:{fitting[-1]}" if fitting else "no target is for that one yet"
            raise ArtifactError(
                f"this engine is for {target}, which needs a GPU of compute capability {wanted[:-1]}.{wanted[-1]}, "
                f"and {self.name} has {major}.{minor}; {way_out}"
            )


def pin(size: int, what: str) -> tuple[np.ndarray, int]:
    """Pinned host memory, u8 [size], and its address. OptionError where there is no room."""
    try:
        address = int(call(driver.cuMemHostAlloc, max(size, 1), 0))
    except OutOfMemoryError as problem:
        raise OptionError(
            f"{what} must have {size / 1e9:.2f} GB of the host's pinned memory, which it refuses; "
            "load the engine with smaller swap_tokens, max_tokens or max_rows"
        ) from problem
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)), address


def _start_driver(target: str) -> None:
    """Raise ArtifactError where there is no driver, or no device."""
    way_out = "run it on a machine with an NVIDIA GPU and its driver, or compile it with --target cpu"
    try:
        call(driver.cuInit, 0)
        count = call(driver.cuDeviceGetCount)
    except DriverError as problem:
        raise ArtifactError(f"this engine is for {target}, and CUDA does not start ({problem}); {way_out}") from problem
    except MissingFunctionError as problem:
        raise ArtifactError(f"this engine is for {target}, and this machine has no CUDA driver; {way_out}") from problem
    if not count:
        raise ArtifactError(f"this engine is for {target}, and this machine shows no GPU; {way_out}")
