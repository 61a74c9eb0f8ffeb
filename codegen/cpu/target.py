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
from ...runtime.artifact.schema import KernelLibrary, Plan
from ...runtime.artifact.version import xllmc_version
from .kernel_check import check_brought
from .lower import Lowered, lower
from .toolchain import SOURCE, build, choose_levels, find_compiler


class CpuTarget:
    """Kernels in C++, one shared library for each instruction-set level."""

    name = "cpu"

    def passes(self) -> tuple[type[Pass], ...]:
        return pass_types(FuseEpilogue, GroupLoops, PackWeights)

    def emit(self, program: Program, options: BuildOptions, work: Path, progress: Callable[[str], None]) -> Bundle:
        levels = choose_levels(options.isa)
        compiler = find_compiler()
        lowered = lower(program, xllmc_version())

        def build_alone(one: Program, place: Path, level: str) -> tuple[KernelLibrary, Plan]:
            alone = lower(one, xllmc_version())
            write_sources(alone, place)
            _, (library,) = build(place, SOURCE, [level], compiler, 1, progress)
            return library.model_copy(update={"path": Path(library.path).name}), alone.plan

        check_brought(program, work, build_alone, progress)
        sources = write_sources(lowered, work)
        libraries, kernels = build(work, SOURCE, levels, compiler, options.jobs, progress)
        shipped = {f"kernels/{path}": text for path, text in sources.items()}
        return Bundle(lowered.plan, shipped, libraries, kernels, {"c++": compiler.version}, invariant=True)


def write_sources(lowered: Lowered, place: Path) -> dict[str, str]:
    """Write what the compiler reads below ``place``; returns path to text."""
    sources = {SOURCE: lowered.source}
    sources |= {f"include/xllmc/{name}": text for name, text in read_headers().items()}
    sources |= {f"include/{path}": text for path, text in lowered.headers.items()}
    for path, text in sources.items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return sources


def read_headers() -> dict[str, str]:
    """The kernel headers by name, which an engine ships beside its generated source."""
    folder = resources.files(__package__).joinpath("include/xllmc")
    return {f.name: f.read_text() for f in sorted(folder.iterdir(), key=lambda f: f.name) if f.name.endswith(".h")}
