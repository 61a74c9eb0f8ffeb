"""The device: what it is, and what it gives at most, measured with torch in the same run as everything else."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from ...runtime.artifact.errors import OptionError

_COPY_BYTES = 4 << 30
_MATRIX = 8192
_REPEATS = 10
PACKAGES = ("xllmc", "torch", "triton", "transformers", "numpy", "cuda-bindings")


@dataclass(frozen=True)
class DeviceRecord:
    """What the figures were taken on."""

    name: str
    architecture: str
    memory_bytes: int
    multiprocessors: int
    driver: str
    sm_clock_mhz: str
    """Just after the matrix products, and the most that it may be."""
    memory_clock_mhz: str
    python: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Limits:
    copy_bytes_per_second: float
    """Read and written, of a copy within the device's memory."""
    matrix_flops: float
    """Of a square bf16 product of random values."""


def require_torch() -> Any:
    """torch with a GPU, or an OptionError."""
    try:
        import torch
    except ImportError as problem:
        raise OptionError("measuring on a GPU requires torch; pip install 'xllmc[compile,cuda]'") from problem
    if not torch.cuda.is_available():
        raise OptionError(
            "measuring on a GPU requires an NVIDIA GPU that torch can use, and finds none; run it on a machine with one"
        )
    return torch


def architecture(torch: Any) -> str:
    """``sm_90``, say."""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def measure_limits(torch: Any, rounds: int) -> Limits:
    """Medians over ``rounds``."""
    return Limits(_copies(torch, rounds), _products(torch, rounds))


def _copies(torch: Any, rounds: int) -> float:
    source, target = (torch.zeros(_COPY_BYTES, dtype=torch.uint8, device="cuda") for _ in range(2))
    return median(2 * _COPY_BYTES / seconds(torch, lambda: target.copy_(source)) for _ in range(rounds))


def _products(torch: Any, rounds: int) -> float:
    a, b = (torch.randn(_MATRIX, _MATRIX, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    return median(2 * _MATRIX**3 / seconds(torch, lambda: a @ b) for _ in range(rounds))


def seconds(torch: Any, call: Any) -> float:
    """Of one call on the device: the mean of several in succession, after two that warm up."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    call()
    began.record()
    for _ in range(_REPEATS):
        call()
    ended.record()
    torch.cuda.synchronize()
    return float(began.elapsed_time(ended)) / 1e3 / _REPEATS


def describe(torch: Any) -> DeviceRecord:
    """Clocks are read now, so call it after something that raised them."""
    properties = torch.cuda.get_device_properties(0)
    driver, sm, sm_most, memory, memory_most = _smi("driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem")
    return DeviceRecord(
        name=properties.name,
        architecture=architecture(torch),
        memory_bytes=properties.total_memory,
        multiprocessors=properties.multi_processor_count,
        driver=driver,
        sm_clock_mhz=f"{sm} of {sm_most}",
        memory_clock_mhz=f"{memory} of {memory_most}",
        python=sys.version.split()[0],
        packages={name: _version(name) for name in PACKAGES},
    )


def _smi(query: str) -> list[str]:
    unknown = ["unknown"] * len(query.split(","))
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return unknown
    return [word.strip() for word in told.splitlines()[0].split(",")] if told.strip() else unknown


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
