"""Kernels compiled ahead of time, on a machine that may have no GPU, and held against what the architecture offers."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.schema import DeviceKernel
from .architecture import MOST_REGISTERS, Architecture
from .kernel import KernelSource
from .ttir import import_triton, last_line, make_ttir

HEADER = """\
# A kernel of an engine made by xllmc, as it was compiled. `sizes` points to T, S, R, B and Q of the step.
import triton
import triton.language as tl


"""

_ALIGNED = 16
"""Bytes to which every pointer is aligned, so that loads are as wide as they can be."""


@dataclass(frozen=True)
class Compiled:
    kernel: DeviceKernel
    binary: bytes
    ptx: str


def source_file(source: KernelSource) -> str:
    """The text of the Python module that holds the kernel."""
    return HEADER + source.text


def load_function(source: KernelSource, place: Path) -> Any:
    """The kernel as a Triton function; ``@triton.jit`` wants it in a file, which is written in ``place``."""
    path = place / f"{source.name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source_file(source))
    return function_in(path, source.name)


def function_in(path: Path, name: str) -> Any:
    """The function ``name`` of a Python file, which is not cached anywhere."""
    spec = importlib.util.spec_from_file_location(f"xllmc_kernels.{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return getattr(module, name)


def ast_source(source: KernelSource, place: Path) -> Any:
    """What Triton compiles: the function, its parameters' types, and their alignment."""
    from triton.compiler import ASTSource

    function = load_function(source, place)
    signature = dict(zip(source.parameters, source.pointers, strict=True))
    attributes = {(i,): [["tt.divisibility", _ALIGNED]] for i in range(len(signature))}
    return ASTSource(fn=function, signature=signature, constexprs={}, attrs=attributes)


def source_ttir(source: KernelSource, place: Path) -> str:
    """The kernel in Triton's own IR, which no device's compiler has touched yet."""
    described = ast_source(source, place)
    return make_ttir(described.fn, described.signature, described.constants, described.attrs)


def compile_cubin(source: KernelSource, machine: Architecture, place: Path, invariant: bool = False) -> Compiled:
    """The kernel's machine code. Raises XllmcError where Triton refuses it or it asks for more than there is.

    ``invariant``: products and sums are not contracted to fused ones, which variants of a kernel could do differently.
    """
    triton = import_triton()
    made = _compile(triton, source, machine, place, not invariant)
    metadata = made.metadata
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        raise XllmcError(f"kernel {source.name} wants global scratch memory, which plans do not give")
    cubin = made.asm["cubin"]
    registers, spilled = resources_of(cubin, source.name, place)
    kernel = DeviceKernel(
        name=source.name,
        path=f"kernels/{source.name}.cubin",
        symbol=metadata.name,
        parameters=source.parameters,
        pointers=source.pointers,
        warps=metadata.num_warps,
        shared_bytes=metadata.shared,
        registers=registers,
        spilled_bytes=spilled,
        config=source.config.record(),
    )
    check_resources(kernel, machine)
    return Compiled(kernel, cubin, made.asm["ptx"])


def _compile(triton: ModuleType, source: KernelSource, machine: Architecture, place: Path, fused: bool) -> Any:
    from triton.backends.compiler import GPUTarget

    # Line information holds this machine's paths, and two compiles must give the same bytes.
    triton.knobs.compilation.disable_line_info = True
    options = {"num_warps": source.config.warps, "num_stages": source.config.stages, "enable_fp_fusion": fused}
    target = GPUTarget("cuda", machine.capability, 32)
    try:
        return triton.compile(ast_source(source, place), target=target, options=options)
    except Exception as problem:  # Triton's own errors share no base, and kernels may be a plugin's
        said = last_line(problem)
        raise XllmcError(f"Triton cannot compile kernel {source.name} for {machine.name}: {said}") from problem


def check_resources(kernel: DeviceKernel, machine: Architecture) -> None:
    """XllmcError where no program of the kernel would fit the architecture."""
    if kernel.shared_bytes > machine.shared_limit:
        raise XllmcError(
            f"kernel {kernel.name} needs {kernel.shared_bytes} bytes of shared memory, "
            f"and {machine.name} has {machine.shared_limit}; its tiles {kernel.config} are too large"
        )
    if kernel.registers is not None and kernel.registers > MOST_REGISTERS:
        raise XllmcError(f"kernel {kernel.name} needs {kernel.registers} registers, and there are {MOST_REGISTERS}")


def resources_of(cubin: bytes, name: str, place: Path) -> tuple[int, int]:
    """Registers of a thread, and bytes of it that were spilled to memory, as the vendor's tool reads them."""
    file = place / f"{name}.cubin"
    file.write_bytes(cubin)
    told = subprocess.run([cuobjdump(), "-res-usage", str(file)], capture_output=True, text=True, check=False)
    found = re.search(r"REG:(\d+) STACK:(\d+)", told.stdout)
    if found is None:
        raise XllmcError(f"cuobjdump tells no resources of kernel {name}: {(told.stderr or told.stdout).strip()[:200]}")
    return int(found[1]), int(found[2])


def cuobjdump() -> str:
    """The one that comes with Triton."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
