"""Emitting: what the check finds, what is refused, and that nothing is left behind."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from xllmc.codegen.portable.signature import signature
from xllmc.codegen.portable.step import Step
from xllmc.compiler.emitting.check import ALLOWED
from xllmc.compiler.emitting.drive import emit_model
from xllmc.compiler.emitting.emitter import Runner, Verified
from xllmc.compiler.emitting.steps import sample_steps
from xllmc.compiler.options import CompileOptions
from xllmc.runtime.artifact.errors import XllmcError

from tests.checkpoints import make_checkpoint
from tests.commands import run_command


class TorchEmitter:
    """Runs the portable module itself; ``fault`` changes its results."""

    name, suffix, engine, most_checked = "torch", ".txt", "torch", 1 << 30

    def __init__(self, fault=lambda inputs, results: None) -> None:
        self.fault = fault

    def require(self) -> None:
        pass

    def write(self, program, weight, file: Path) -> Verified:
        file.write_text("written")
        file.with_name(f"{file.name}.data").write_text("beside")
        self.program, self.weight = program, weight
        return Verified("nobody", {})

    def load(self, file: Path) -> Runner:
        signed, step = signature(self.program), Step(self.program)

        def run(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            given = [self.weight(a.name) if a.kind == "weight" else values[a.name] for a in signed.arguments]
            results = dict(zip((r.name for r in signed.results), step(*given), strict=True))
            self.fault(values, results)
            return results

        return run


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def emit_tiny(checkpoint, out: Path, emitter: TorchEmitter, family: str = "gemma2", **options):
    chosen = CompileOptions(**{"dtype": "fp32", "verification": "off", **options})
    return emit_model(checkpoint(family), out, emitter, chosen)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_family_agrees_in_its_portable_form(checkpoint, tmp_path, family, dtype):
    result = emit_tiny(checkpoint, tmp_path / "x.txt", TorchEmitter(), family, dtype=dtype)
    assert [f.path.name for f in result.files] == ["x.txt", "x.txt.data"] and names(tmp_path) == {"x.txt", "x.txt.data"}
    assert len(result.checks) == 4 and max(c.error for c in result.checks) < 1e-5
    assert "pack-weights" not in [r.name for r in result.reports]


def scaled(inputs, results):
    results["logits"] *= 1.01


def one_row_swapped(inputs, results):
    if len(results["logits"]) > 2:
        results["logits"][:2] = results["logits"][:2].flip(0)


def a_state_not_written(inputs, results):
    results["next.kv.2.values"] = inputs["kv.2.values"]


def not_a_number(inputs, results):
    results["logits"][-1, -1] = math.nan


@pytest.mark.parametrize("fault", [scaled, one_row_swapped, a_state_not_written, not_a_number])
def test_a_fault_is_found_and_nothing_is_written(checkpoint, tmp_path, fault):
    with pytest.raises(XllmcError, match="torch computes something else than the program it was made of"):
        emit_tiny(checkpoint, tmp_path / "x.txt", TorchEmitter(fault))
    assert names(tmp_path) == set()


def test_a_model_too_large_to_run_is_said_to_be(checkpoint, tmp_path):
    emitter = TorchEmitter(not_a_number)
    emitter.most_checked = 1000
    result = emit_tiny(checkpoint, tmp_path / "x.txt", emitter)
    assert result.checks == () and result.unchecked is not None and result.unchecked.startswith("not run: with torch")


def test_sample_steps_cross_pages_and_windows_and_stay_within_the_context(checkpoint, tmp_path):
    emitter = TorchEmitter()
    emit_tiny(checkpoint, tmp_path / "x.txt", emitter)
    steps = {s.name: s.inputs for s in sample_steps(emitter.program)}
    assert {len(i["query_starts"]) - 1 for i in steps.values()} == {1, 3}
    assert int(steps["decode"]["positions"].max()) > 32
    behind = [(i["block_table.0"] < 0).any() or (i["block_table.1"] < 0).any() for i in steps.values()]
    assert any(behind), "no step has a page that its window has left behind"
    emit_tiny(checkpoint, tmp_path / "y.txt", emitter, max_context=4)
    assert all(int(s.inputs["positions"].max()) < 4 for s in sample_steps(emitter.program))


def test_files_are_replaced_and_directories_are_not(checkpoint, tmp_path):
    (tmp_path / "x.txt").write_text("old")
    emit_tiny(checkpoint, tmp_path / "x.txt", TorchEmitter())
    assert (tmp_path / "x.txt").read_text() == "written"
    (tmp_path / "y.txt").mkdir()
    with pytest.raises(XllmcError, match="is a directory"):
        emit_tiny(checkpoint, tmp_path / "y.txt", TorchEmitter())


# --- the command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--emit", "tflite", "-o", "x.tflite"], "--emit must be one of mlir, onnx, got 'tflite'"),
        (["--emit", "onnx", "-o", "x.mlir"], "--emit onnx requires an --output that ends in .onnx, got 'x.mlir'"),
        (["--emit", "onnx", "-o", "x.onnx", "--isa", "native"], "--emit builds no kernels, which --isa is about"),
        (["--emit", "mlir", "-o", "x.mlir", "--jobs", "2"], "--emit builds no kernels, which --jobs is about"),
        (["--emit", "mlir", "-o", "x.mlir", "--dtype", "fp8"], "--dtype must be one of bf16, fp32"),
        (["--emit", "mlir", "-o", "x.mlir", "--target", "tpu"], "--target must be one of"),
    ],
)
def test_options_that_make_no_sense_are_refused(capfd, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "qwen3"}')
    done = run_command(capfd, "compile", "model", *options)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert names(tmp_path) == {"model"}


@pytest.mark.parametrize(("form", "package"), [("onnx", "onnxruntime"), ("mlir", "torch_mlir")])
def test_a_missing_package_is_one_line_with_the_extra(capfd, monkeypatch, tmp_path, form, package):
    from xllmc.codegen.portable import packages

    real = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == package else real(name))
    done = run_command(capfd, "compile", tmp_path, "--emit", form, "-o", tmp_path / f"x.{form}")
    assert done.code == 2
    assert f"requires the package {package}, which is missing; pip install 'xllmc[{form}]'" in done.err


def test_the_command_says_what_it_wrote_and_how_far_off_it_was(capfd, tmp_path):
    model = make_checkpoint("qwen3", tmp_path / "model", num_hidden_layers=1)
    arguments = ("compile", model, "--emit", "onnx", "--dtype", "fp32", "--verify", "off")
    done = run_command(capfd, *arguments, "-o", tmp_path / "x.onnx", "--json")
    said = json.loads(done.out)
    assert done.code == 0 and said["emitted"] == "onnx" and said["allowed"] == ALLOWED
    assert [Path(f["path"]).name for f in said["files"]] == ["x.onnx", "x.onnx.data"]
    assert [c["step"] for c in said["checks"]] == ["one token", "prefill", "decode", "mixed"]
    assert "sampling tokens and scoring given ones are not" in done.err
