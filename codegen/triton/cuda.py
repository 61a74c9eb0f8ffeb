"""NVIDIA GPUs as a compilation target: ``cuda:sm_90`` and its like. Compiling needs no GPU."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from ...compiler.ir.program import Program
from ...compiler.target import BuildOptions, Bundle
from ...passes.api import Pass, pass_types
from ...passes.fuse_epilogue import FuseEpilogue
from ...passes.group_loops import GroupLoops
from .architecture import ARCHITECTURES, architecture
from .compile import compile_cubin, source_file
from .kernel_check import check_brought
from .lower import lower
from .ttir import import_triton


class CudaTarget:
    """Triton kernels as cubins for one compute capability."""

    name = "cuda"
    variants = tuple(ARCHITECTURES)

    def __init__(self, variant: str) -> None:
        self.machine = architecture(variant)
        self.name = f"cuda:{variant}"

    def passes(self) -> tuple[type[Pass], ...]:
        return pass_types(FuseEpilogue, GroupLoops)

    def emit(self, program: Program, options: BuildOptions, work: Path, progress: Callable[[str], None]) -> Bundle:
        import_triton()
        check_brought(program, self.machine, work, progress, options.invariant)
        lowered = lower(program, self.machine, options.invariant)
        kernels, files, sources = [], {}, {}
        for number, source in enumerate(sorted(lowered.sources, key=lambda s: s.name), 1):
            progress(f"{source.name} ({number} of {len(lowered.sources)})")
            compiled = compile_cubin(source, self.machine, work, options.invariant)
            kernels.append(compiled.kernel)
            file = work / compiled.kernel.path
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(compiled.binary)
            files[compiled.kernel.path] = file
            sources[f"kernels/{source.name}.py"] = source_file(source)
        plan = lowered.plan.model_copy(update={"device_kernels": tuple(kernels)})
        tools = {"triton": version("triton")}
        return Bundle(plan, sources, files, (), tools, options.invariant, invents_weights=True)
