"""A plan's launches with every address settled: what the driver is told, apart from which stream."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver

from ..artifact.errors import ArtifactError
from ..artifact.schema import DeviceKernel, FunctionPlan, Launch, Plan, Pointer
from ..artifact.sizes import DeviceSizes, grid_of, holds
from .calls import DriverError, OutOfMemoryError, call
from .device import Device

_PLAIN_SHARED = 48 << 10
"""Dynamic shared memory that a kernel may have without being told so (CUDA programming guide)."""
_SCRATCH_POINTERS = 2
"""Triton's kernels end with two pointers to memory that ours never want."""
_GRID_LIMITS = (2**31 - 1, 65_535, 65_535)

Addresses = Mapping[tuple[str, str], int]
"""By kind of pointer and name."""


@dataclass(frozen=True)
class Kernel:
    """An entry of a loaded cubin."""

    function: Any
    threads: int
    shared_bytes: int


@dataclass(frozen=True)
class BoundLaunch:
    """One launch as the driver takes it."""

    index: int
    """Among those of its function."""
    kernel: Kernel
    grid: tuple[int, int, int]
    parameters: np.ndarray
    """u64: addresses of ``values``, one by one."""
    values: np.ndarray
    """u64: the pointers that the kernel is given."""

    def enqueue(self, stream: Any) -> None:
        """Launch it, or add it to what ``stream`` captures."""
        call(
            driver.cuLaunchKernel,
            self.kernel.function,
            *self.grid,
            self.kernel.threads,
            1,
            1,
            self.kernel.shared_bytes,
            stream,
            self.parameters.ctypes.data,
            0,
        )


def load_kernels(device: Device, root: Path, kernels: Iterable[DeviceKernel]) -> dict[str, Kernel]:
    """By name. Raises ArtifactError for a binary that the device does not take."""
    modules: dict[str, Any] = {}
    most = device.attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
    return {kernel.name: _load(device, root, kernel, modules, most) for kernel in kernels}


def _load(device: Device, root: Path, kernel: DeviceKernel, modules: dict[str, Any], most: int) -> Kernel:
    if kernel.shared_bytes > most:
        raise ArtifactError(
            f"kernel {kernel.name} needs {kernel.shared_bytes} bytes of shared memory, and {device.name} has {most}; "
            "compile the engine for this GPU"
        )
    file = root / kernel.path
    try:
        if kernel.path not in modules:
            modules[kernel.path] = call(driver.cuModuleLoadData, file.read_bytes())
            device.owns(driver.cuModuleUnload, modules[kernel.path])
        function = call(driver.cuModuleGetFunction, modules[kernel.path], kernel.symbol.encode())
        if kernel.shared_bytes > _PLAIN_SHARED:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            call(driver.cuFuncSetAttribute, function, attribute, kernel.shared_bytes)
        # The driver may put this off until the first launch, which is while a stream captures.
        call(driver.cuFuncLoad, function)
    except OutOfMemoryError as problem:
        raise device.no_room("the kernels", file.stat().st_size) from problem
    except DriverError as problem:
        raise ArtifactError(
            f"{file} does not give {device.name} the kernel {kernel.symbol} ({problem}); compile the engine again"
        ) from problem
    except OSError as problem:
        raise ArtifactError(f"{file} cannot be read: {problem.strerror}; copy or compile the engine again") from problem
    return Kernel(function, 32 * kernel.warps, kernel.shared_bytes)


def check_launches(plan: Plan, files: Iterable[str]) -> None:
    """Refuse (ArtifactError) a plan whose launches a device cannot be given."""
    kernels = {kernel.name: kernel for kernel in plan.device_kernels}
    present = set(files)
    for kernel in plan.device_kernels:
        if kernel.path not in present:
            raise ArtifactError(f"the engine's files must include {kernel.path}, and do not; compile it again")
    for function in plan.functions:
        for launch in function.launches:
            if fault := _fault(function, launch, kernels):
                raise ArtifactError(f"launch {launch.origin} of {function.name} {fault}; compile the engine again")


def _fault(function: FunctionPlan, launch: Launch, kernels: Mapping[str, DeviceKernel]) -> str | None:
    if launch.kernel not in kernels:
        return f"is of the kernel {launch.kernel}, which the engine lacks"
    if launch.grid is None:
        return "has no grid"
    if not all(isinstance(operand, Pointer) for operand in launch.operands):
        return "has operands that are no pointers"
    if len(launch.operands) != len(kernels[launch.kernel].parameters):
        return f"gives {len(launch.operands)} pointers, and its kernel takes {len(kernels[launch.kernel].parameters)}"
    named = {term.symbol for axis in launch.grid for term in axis} | {c.symbol for c in launch.when}
    # Graphs of these functions are captured for numbers of rows alone.
    if function.name != "forward" and (beyond := sorted(filter(None, named - {"R", None}))):
        return f"follows the size {beyond[0]}, and only forward's may follow others than R"
    return None


def bind(
    function: FunctionPlan, kernels: Mapping[str, Kernel], sizes: DeviceSizes, addresses: Addresses
) -> list[BoundLaunch]:
    """The launches that a graph for ``sizes`` has, in order: those whose conditions hold, and whose grid is not empty.
    Raises ArtifactError for a pointer to what is not there, or a grid that no device has.
    """
    bound = []
    for index, launch in enumerate(function.launches):
        grid = grid_of(launch, sizes)
        if not holds(launch.when, sizes) or 0 in grid:
            continue
        if any(count > most for count, most in zip(grid, _GRID_LIMITS, strict=True)):
            raise ArtifactError(
                f"launch {launch.origin} of {function.name} would have a grid of {list(grid)} for {dict(sizes)}, "
                f"and a GPU takes at most {list(_GRID_LIMITS)}; load the engine with smaller max_tokens or max_rows"
            )
        pointers = [_address(function, launch, operand, addresses) for operand in launch.operands]
        values = np.array(pointers + [0] * _SCRATCH_POINTERS, np.uint64)
        parameters = values.ctypes.data + np.arange(len(values), dtype=np.uint64) * np.uint64(8)
        bound.append(BoundLaunch(index, kernels[launch.kernel], grid, parameters, values))
    return bound


def _address(function: FunctionPlan, launch: Launch, operand: Any, addresses: Addresses) -> int:
    key = (operand.kind, f"{function.name}:{operand.name}" if operand.kind == "input" else operand.name)
    if key not in addresses:
        raise ArtifactError(
            f"launch {launch.origin} of {function.name} refers to the {operand.kind} {operand.name}, "
            "which the engine lacks; compile the engine again"
        )
    return addresses[key]
