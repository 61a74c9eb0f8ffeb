"""``xllmc rebuild``: make an engine's kernels again from the sources that it ships. Needs a C++ compiler, not torch.

An engine is native code. Whoever would rather trust its readable sources than its libraries builds them here; it also
serves a machine with an older C library, or an instruction set that the engine was not built for.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ...runtime.artifact.errors import ArtifactError
from ...runtime.artifact.reader import check_files, read_manifest, read_plan
from ...runtime.artifact.schema import Manifest
from ...runtime.artifact.writer import MEASURED, PLAN, write_engine
from .toolchain import SOURCE, build, choose_levels, find_compiler


def rebuild_command(
    engine: Annotated[Path, typer.Argument(help="An engine directory; its kernels are replaced.")],
    isa: Annotated[
        list[str] | None, typer.Option(help="Instruction sets to build for: all (default), native, or names.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="C++ compilers run at once.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Build an engine's kernels again from the sources it ships."""
    manifest = rebuild_kernels(engine, isa or ["all"], jobs)
    levels = [library.isa for library in manifest.kernels]
    if as_json:
        print(json.dumps({"engine": str(engine), "kernels": levels, "compiler": manifest.tools["c++"]}))
    else:
        print(f"{engine}: kernels for {', '.join(levels)} built by {manifest.tools['c++']}")


def rebuild_kernels(engine: Path, isa: Sequence[str], jobs: int = 2) -> Manifest:
    """Replace the engine by one with the same files and newly built libraries; returns its manifest.

    The old libraries may be damaged or missing. Raises ArtifactError for an engine damaged otherwise or not for the
    CPU, XllmcError where the compiler is missing or fails; the engine is then as it was.
    """
    manifest, levels = read_manifest(engine, libraries=False), choose_levels(isa)
    if manifest.target != "cpu":
        raise ArtifactError(
            f"xllmc rebuild requires an engine for the cpu, {engine} is for {manifest.target}; compile the model again"
        )
    check_files(engine, manifest, libraries=False)
    compiler = find_compiler()
    old = {library.path for library in manifest.kernels}
    with tempfile.TemporaryDirectory(prefix="xllmc-") as temporary:
        work = Path(temporary)
        shutil.copy(engine / "kernels" / SOURCE, work)
        shutil.copytree(engine / "kernels" / "include", work / "include")
        libraries, kernels = build(work, SOURCE, levels, compiler, jobs, lambda what: None)
        with write_engine(engine) as writer:
            for entry in manifest.files:
                if entry.path not in old and entry.path != PLAN:
                    writer.add_file(entry.path, engine / entry.path)
            for path, library in libraries.items():
                writer.add_file(path, library)
            changed = manifest.model_copy(
                update={"kernels": kernels, "tools": {**manifest.tools, "c++": compiler.version}, "files": ()}
            )
            measured = engine / MEASURED
            return writer.finish(
                changed, read_plan(engine), json.loads(measured.read_text()) if measured.is_file() else None
            )
