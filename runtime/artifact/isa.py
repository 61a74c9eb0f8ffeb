"""Which kernel library this machine can run."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from .errors import ArtifactError, OptionError
from .schema import KernelLibrary

_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "abm"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
REQUIRED_FLAGS = {
    "x86-64-v3": _V3,
    "x86-64-v4": _V4,
    "x86-64-v4-bf16": _V4 | {"avx512_bf16", "avx512_vnni"},
}
"""Instruction-set levels, least first, and the flags of /proc/cpuinfo that each needs (x86-64 psABI; abm is LZCNT)."""


def supported_isas() -> tuple[str, ...]:
    """The levels this CPU offers, least first."""
    flags = _cpu_flags()
    return tuple(isa for isa, required in REQUIRED_FLAGS.items() if required <= flags)


def choose_library(libraries: Sequence[KernelLibrary], isa: str | None = None) -> KernelLibrary:
    """The library of the highest level this CPU offers, or of the level ``isa``.

    Raises ArtifactError if none fits or it needs a newer C library, OptionError for an ``isa`` that is not there.
    """
    supported = supported_isas()
    built = {library.isa: library for library in libraries}
    if isa is not None and isa not in built:
        raise OptionError(
            f"this engine has kernels for {', '.join(built)}, not for {isa}; compile it with that level too"
        )
    usable = [level for level in supported if level in built and isa in (None, level)]
    if not usable:
        wanted = isa or ", ".join(built) or "nothing"
        ours = ", ".join(supported) or f"none of the levels xllmc knows ({platform.machine()})"
        raise ArtifactError(
            f"this engine's kernels need {wanted}, and this CPU offers {ours}; compile it for this machine"
        )
    library = built[usable[-1]]
    _check_glibc(library)
    return library


def _check_glibc(library: KernelLibrary) -> None:
    ours = glibc_version()
    if ours is None or _numbers(ours) < _numbers(library.glibc):
        raise ArtifactError(
            f"{library.path} needs the C library glibc {library.glibc} or later, got {ours or 'another C library'}; "
            "compile the engine on this machine"
        )


def glibc_version() -> str | None:
    """The running C library's version, or None if it is not glibc."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None
    return text.split()[1] if text else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _cpu_flags() -> frozenset[str]:
    with Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
