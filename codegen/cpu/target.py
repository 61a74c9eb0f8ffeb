"""The CPU as a compilation target."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

from ...compiler.ir.program import Program
from ...compiler.target import BuildOptions, Bundle
from ...passes.api import Pass, pass_types
from ...passes.fuse_epilogue import FuseEpilogue
from ...passes.group_loops import GroupLoops
from ...passes.pack_weights import PackWeights
from ...runtime.artifact.version import xllmc_version
from .lower import lower
from .toolchain import SOURCE, build, choose_levels, find_compiler


class CpuTarget:
    """Kernels in C++, one shared library for each instruction-set level."""

    name = "cpu"

    def lowering_passes(self) -> tuple[type[Pass], ...]:
        return pass_types(FuseEpilogue, GroupLoops, PackWeights)

    def emit(self, program: Program, options: BuildOptions, work: Path, progress: Callable[[str], None]) -> Bundle:
        levels = choose_levels(options.isa)
        compiler = find_compiler()
        lowered = lower(program, xllmc_version())
        headers = {f"include/xllmc/{name}": text for name, text in read_headers().items()}
        headers |= {f"include/{path}": text for path, text in lowered.headers.items()}
        for path, text in {SOURCE: lowered.source, **headers}.items():
            place = work / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        libraries, kernels = build(work, SOURCE, levels, compiler, options.jobs, progress)
        sources = {f"kernels/{path}": text for path, text in {SOURCE: lowered.source, **headers}.items()}
        return Bundle(lowered.plan, sources, libraries, kernels, {"c++": compiler.version})


def read_headers() -> dict[str, str]:
    """The kernel headers by name, which an engine ships beside its generated source."""
    folder = resources.files(__package__).joinpath("include/xllmc")
    return {f.name: f.read_text() for f in sorted(folder.iterdir(), key=lambda f: f.name) if f.name.endswith(".h")}
