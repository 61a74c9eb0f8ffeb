"""An engine's kernels can be built again from the sources it ships, without torch, and are the same."""

import shutil
import subprocess
import sys

import pytest
from xllmc.codegen.cpu.rebuild import rebuild_kernels
from xllmc.runtime.artifact.errors import ArtifactError
from xllmc.runtime.artifact.reader import check_files, read_manifest

from tests.commands import run_command
from tests.engines import engine_contents


@pytest.fixture
def engine(engine_dir, tmp_path):
    return shutil.copytree(engine_dir("gpt2", "fp32"), tmp_path / "copy.engine")


def test_the_same_compiler_makes_the_same_engine(engine):
    before = engine_contents(engine)
    manifest = rebuild_kernels(engine, ["native"])
    check_files(engine, manifest)
    assert engine_contents(engine) == before


@pytest.mark.parametrize("damage", ["corrupt", "truncated", "missing"])
def test_damaged_libraries_are_made_again(engine, damage):
    before = engine_contents(engine)
    for library in (engine / "kernels").glob("*.so"):
        size = library.stat().st_size
        library.unlink()
        if damage != "missing":
            library.write_bytes(bytes(size if damage == "corrupt" else 10))
    rebuild_kernels(engine, ["native"])
    assert engine_contents(engine) == before


def test_levels_can_be_added(engine, capfd):
    done = run_command(capfd, "rebuild", engine, "--isa", "native", "--isa", "x86-64-v3")
    assert done.code == 0, done.err
    assert "x86-64-v3" in {library.isa for library in read_manifest(engine).kernels}
    assert len(list((engine / "kernels").glob("*.so"))) == len(read_manifest(engine).kernels)


def test_changed_sources_are_not_built(engine):
    source = engine / "kernels" / "kernels.cpp"
    source.write_text(source.read_text().replace("worker", "Worker", 1))
    with pytest.raises(ArtifactError, match=r"kernels\.cpp"):
        rebuild_kernels(engine, ["native"])


def test_no_torch_is_needed():
    code = "import sys, xllmc.codegen.cpu.rebuild; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
