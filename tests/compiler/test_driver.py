"""The driver: what it reports, and that a compile without a checkpoint is one too."""

import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file
from xllmc.compiler.driver import compile_model
from xllmc.compiler.options import CompileOptions
from xllmc.compiler.pipeline.run import PassReport
from xllmc.compiler.progress import Silent
from xllmc.runtime.artifact.errors import ArtifactError, CheckpointError, OptionError
from xllmc.runtime.engine import Engine

from tests.commands import run_command


class Recorder(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.units: dict[str, int] = {}
        self.totals: dict[str, int] = {}
        self.passes: list[PassReport] = []

    def stage(self, name: str, total: int) -> None:
        self.stages.append(name)
        self.totals[name] = total

    def advanced(self, units: int, what: str) -> None:
        self.units[self.stages[-1]] = self.units.get(self.stages[-1], 0) + units

    def passed(self, report: PassReport) -> None:
        self.passes.append(report)


@pytest.fixture(scope="module")
def compiled(checkpoint, tmp_path_factory):
    """(what the listener heard, the result, the engine) of a compile from config.json and a seed alone."""
    model = tmp_path_factory.mktemp("bare")
    (model / "config.json").write_bytes((checkpoint("qwen3") / "config.json").read_bytes())
    out, recorder = model / "random.engine", Recorder()
    result = compile_model(model, out, CompileOptions(dtype="fp32", isa=("native",), random_weights=3), recorder)
    return recorder, result, out


def test_progress_adds_up(compiled):
    recorder, result, _ = compiled
    assert recorder.stages == ["trace", "passes", "kernels", "weights"]
    assert recorder.units["weights"] == recorder.totals["weights"] > 0
    assert recorder.units["passes"] == recorder.totals["passes"] == len(recorder.passes)
    assert tuple(recorder.passes) == result.reports


def test_the_estimate_of_sizes_holds(compiled):
    _, result, out = compiled
    actual = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    assert actual <= result.estimate.engine_bytes


def test_every_declared_fusion_matched(compiled):
    """Two layers of qwen3: what each pass must find in them, or the fusions have begun to miss."""
    _, result, _ = compiled
    layers = 2
    matches = {}
    for report in result.reports:
        matches[report.name] = matches.get(report.name, 0) + report.matches
    assert matches["recognize-rms-norm"] == 4 * layers + 1
    assert matches["recognize-rope"] == 2 * layers
    assert matches["fuse-gated-linear"] == layers
    assert matches["fuse-linears"] == layers
    assert matches["fuse-add-rms-norm"] == 2 * layers
    assert matches["fuse-qkv-write"] == layers


def test_random_weights_run_and_are_the_seeds(compiled, tmp_path):
    _, result, out = compiled
    with Engine.load(out, kv_tokens=64) as engine:
        assert abs(engine.logits([1, 2, 3])).max() > 0
    again = compile_model(out.parent, tmp_path / "again.engine", CompileOptions("cpu", "fp32", None, ("native",), 3))
    other = compile_model(out.parent, tmp_path / "other.engine", CompileOptions("cpu", "fp32", None, ("native",), 4))
    assert again.manifest == result.manifest
    assert other.manifest.digest != result.manifest.digest


def test_the_manifest_tells_what_the_passes_did(compiled):
    _, result, out = compiled
    stored = json.loads((out / "manifest.json").read_text())["passes"]
    assert [p["matches"] for p in stored] == [r.matches for r in result.reports]
    assert not any("seconds" in p for p in stored)


def test_an_engine_never_replaces_something_else(checkpoint, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ArtifactError):
        compile_model(checkpoint("gpt2"), tmp_path, CompileOptions(isa=("native",)))
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": "int3"}, "--dtype must be one of bf16, fp32"),
        ({"max_context": 1}, "--max-context must be at least 2"),
        ({"random_weights": -1}, "--random-weights"),
        ({"jobs": 0}, "--jobs"),
    ],
)
def test_impossible_options_are_refused(options, reason):
    with pytest.raises(OptionError, match=reason):
        CompileOptions(**options)


def test_an_unknown_target_is_refused(checkpoint, tmp_path):
    with pytest.raises(
        OptionError, match="--target must be one of ascend:910b, cpu, cuda:sm_80, cuda:sm_89, cuda:sm_90, got 'tpu'"
    ):
        compile_model(checkpoint("gpt2"), tmp_path / "out", CompileOptions(target="tpu"))


def test_a_damaged_tokenizer_is_refused_before_the_work(checkpoint, tmp_path):
    (tmp_path / "config.json").write_bytes((checkpoint("qwen3") / "config.json").read_bytes())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is not a tokenizer"):
        compile_model(tmp_path, tmp_path / "out", CompileOptions(random_weights=0))


def test_weights_are_needed_unless_invented(checkpoint, tmp_path):
    (tmp_path / "config.json").write_bytes((checkpoint("qwen3") / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="has neither model"):
        compile_model(tmp_path, tmp_path / "out", CompileOptions())


@pytest.mark.parametrize("equal", [True, False])
def test_a_tied_tensor_that_the_checkpoint_has_twice_must_be_the_same(equal, checkpoint, tmp_path):
    for file in checkpoint("gemma2").iterdir():
        shutil.copy(file, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    head = tensors["model.embed_tokens.weight"] * (1 if equal else 2)
    save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors", {"format": "pt"})
    if equal:
        compile_model(tmp_path, tmp_path / "out", CompileOptions(isa=("native",)))
    else:
        with pytest.raises(CheckpointError, match=r"ties .* but the checkpoint has both and they differ"):
            compile_model(tmp_path, tmp_path / "out", CompileOptions(isa=("native",)))


def test_notes_name_what_was_not_read(checkpoint, tmp_path, capfd):
    for file in checkpoint("qwen3").iterdir():
        shutil.copy(file, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"model.layers.9.mlp.weight": tensors["model.norm.weight"]}, tmp_path / "model.safetensors")
    done = run_command(capfd, "compile", tmp_path, "-o", tmp_path / "out", "--isa", "native")
    assert done.code == 0
    assert "note: the model has no place for 1 tensors of the checkpoint: model.layers.9.mlp.weight" in done.err
