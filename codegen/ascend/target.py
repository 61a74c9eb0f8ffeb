"""Ascend NPUs as a compilation target, ``ascend:910b``: the same Triton kernels, and the graph as torch_npu calls.

Kernels go as far as they can without the vendor's CANN: from Triton's IR through the Ascend adapter to Linalg and HIVM,
whose text is in the engine. Where CANN's ``bishengir-compile`` is found, it makes binaries of them. Neither kernels nor
graph module have run on such a device, and ``xllmc serve`` does not run these engines.
"""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from ...compiler.ir.program import Program
from ...compiler.target import BuildOptions, Bundle
from ...passes.api import Pass, pass_types
from ...passes.fuse_epilogue import FuseEpilogue
from ...passes.group_loops import GroupLoops
from ...runtime.artifact.errors import OptionError
from ...runtime.artifact.schema import DeviceKernel
from ..triton.architecture import Architecture
from ..triton.compile import source_file, source_ttir
from ..triton.kernel import KernelSource
from ..triton.kernel_check import check_brought
from ..triton.lower import lower
from ..triton.ttir import import_triton
from .adapter import find_adapter, lower_ttir
from .bishengir import NOT_FOUND, compile_binary, find_compiler
from .graph.lower import graph_module

MACHINES = {"910b": Architecture("910b", 0, 192 * 1024, 24)}
"""Unified buffer and cube cores of an Ascend 910B (Huawei's CANN documentation); tiles are chosen to fit."""


class AscendTarget:
    """Linalg and HIVM text of every kernel, and a module of torch code."""

    name = "ascend"
    variants = tuple(MACHINES)

    def __init__(self, variant: str) -> None:
        if variant not in MACHINES:
            raise OptionError(f"--target ascend requires one of {', '.join(MACHINES)}, got {variant!r}")
        self.variant = variant
        self.machine = MACHINES[variant]
        self.name = f"ascend:{variant}"

    def passes(self) -> tuple[type[Pass], ...]:
        return pass_types(FuseEpilogue, GroupLoops)

    def emit(self, program: Program, options: BuildOptions, work: Path, progress: Callable[[str], None]) -> Bundle:
        import_triton()
        adapter, compiler = find_adapter(), find_compiler()
        check_brought(program, self.machine, work, progress, options.invariant)
        lowered = lower(program, self.machine, options.invariant)
        kernels, files, sources = [], {}, {"ascend/model.py": graph_module(program)}
        for number, source in enumerate(sorted(lowered.sources, key=lambda s: s.name), 1):
            progress(f"{source.name} ({number} of {len(lowered.sources)})")
            text = lower_ttir(source_ttir(source, work), source.name)
            sources[f"kernels/{source.name}.py"] = source_file(source)
            sources[f"kernels/{source.name}.mlir"] = text
            path = f"kernels/{source.name}.mlir"
            if compiler is not None:
                path = f"kernels/{source.name}.o"
                files[path] = compile_binary(compiler, text, source.name, self.variant, work).object
            kernels.append(device_kernel(source, path))
        plan = lowered.plan.model_copy(update={"device_kernels": tuple(kernels)})
        tools = {"triton": version("triton"), "triton-ascend": adapter.version}
        return Bundle(plan, sources, files, (), tools, options.invariant, () if compiler else (NOT_FOUND,))


def device_kernel(source: KernelSource, path: str) -> DeviceKernel:
    """What is known of a kernel before the vendor's compiler has seen it."""
    return DeviceKernel(
        name=source.name,
        path=path,
        symbol=source.name,
        parameters=source.parameters,
        pointers=source.pointers,
        warps=source.config.warps,
        shared_bytes=0,
        config=source.config.record(),
    )
