"""Engines for devices that this machine does not have: what a user gets, and what they are told."""

import ast
import json
import re
from pathlib import Path

import pytest
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.compiler.driver import CompileOptions, compile_model
from xllmc.runtime.artifact.errors import ArtifactError
from xllmc.runtime.artifact.reader import check_files, read_manifest, read_plan
from xllmc.runtime.artifact.safetensors_file import SafetensorsFile

from tests.commands import run_command
from tests.engines import engine_contents

NAMES = tuple(ARCHITECTURES)


@pytest.fixture(scope="module")
def compiled(checkpoint, tmp_path_factory: pytest.TempPathFactory):
    """Target to an engine of the tiny qwen3 in bf16."""
    made: dict[str, Path] = {}

    def get(target: str) -> Path:
        if target not in made:
            made[target] = tmp_path_factory.mktemp("device") / "model.engine"
            compile_model(checkpoint("qwen3"), made[target], CompileOptions(target=target, verification="structure"))
        return made[target]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_fits_its_architecture(name: str, compiled):
    engine = compiled(f"cuda:{name}")
    manifest, plan = read_manifest(engine), read_plan(engine)
    check_files(engine, manifest)
    assert manifest.target == f"cuda:{name}" and not manifest.kernels and not manifest.batch_invariant
    assert plan.device_kernels
    for kernel in plan.device_kernels:
        assert kernel.shared_bytes <= ARCHITECTURES[name].shared_limit
        assert (kernel.registers or 0) <= 255
        assert (engine / kernel.path).read_bytes()[:4] == b"\x7fELF"
        assert f"def {kernel.name}(" in (engine / "kernels" / f"{kernel.name}.py").read_text()
    launched = {launch.kernel for function in plan.functions for launch in function.launches}
    assert launched == {kernel.name for kernel in plan.device_kernels}


def test_inspect_shows_registers_shared_memory_and_predicted_times(compiled, capfd: pytest.CaptureFixture):
    engine = compiled("cuda:sm_90")
    shown = run_command(capfd, "inspect", engine)
    assert shown.code == 0 and "not measured: the vendor's data sheet" in shown.out
    rows = [line for line in shown.out.splitlines() if re.match(r"xk_\w+ +\d+ +\d+ +\d+ +\d+ +\d+ ", line)]
    assert len(rows) == len(read_plan(engine).device_kernels)
    assert any(line.endswith(" us") for line in rows)
    told = json.loads(run_command(capfd, "inspect", engine, "--json").out)["device_kernels"]
    assert {"registers", "shared_bytes", "predicted_seconds"} <= told[0].keys()


def test_compiling_twice_gives_the_same_bytes(checkpoint, compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second time with nothing that Triton kept from the first."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    options = CompileOptions(target="cuda:sm_90", verification="structure")
    compile_model(checkpoint("qwen3"), tmp_path / "again.engine", options)
    assert any((tmp_path / "cache").iterdir())
    assert engine_contents(tmp_path / "again.engine") == engine_contents(compiled("cuda:sm_90"))


def test_an_ascend_engine_holds_lowered_kernels_and_a_graph_module(
    checkpoint, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", "")  # no bishengir-compile, wherever this runs
    engine = tmp_path / "model.engine"
    options = ("--target", "ascend:910b", "--verify", "structure", "--random-weights", "3")
    done = run_command(capfd, "compile", checkpoint("qwen3"), "-o", engine, *options)
    assert done.code == 0, done.err
    stored = SafetensorsFile(engine / "weights.safetensors", ArtifactError).entries  # nothing there would make them
    assert {entry.name for entry in read_manifest(engine).weights} == set(stored)
    assert "bishengir-compile is not on PATH" in done.err
    plan = read_plan(engine)
    for kernel in plan.device_kernels:
        text = (engine / kernel.path).read_text()
        assert kernel.path.endswith(".mlir") and f"@{kernel.name}" in text
        assert not re.search(r'"tt\.\w+"|^\s*(%\S+ = )?tt\.', text, re.MULTILINE)
    module = ast.parse((engine / "ascend" / "model.py").read_text())
    assert {"prepare", "forward"} <= {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    assert "tokens/s" not in done.out  # nothing is known of its speed


@pytest.mark.parametrize("command", ["generate", "serve"])
def test_what_cannot_run_here_says_so(command: str, compiled, capfd: pytest.CaptureFixture):
    refused = run_command(capfd, command, compiled("cuda:sm_90"), *(["--prompt", "x"] if command == "generate" else []))
    assert refused.code == 2
    assert "cuda:sm_90" in refused.err and "driver" in refused.err


def test_random_weights_are_left_to_the_device(checkpoint, tmp_path: Path):
    engine = tmp_path / "model.engine"
    options = CompileOptions(target="cuda:sm_90", random_weights=3, verification="structure")
    result = compile_model(checkpoint("qwen3"), engine, options)
    assert result.manifest.random_weights == 3
    constants = [entry for entry in result.manifest.weights if entry.recipe is None]
    size = (engine / "weights.safetensors").stat().st_size
    assert size < 4096 + sum(4096 for _ in constants)
