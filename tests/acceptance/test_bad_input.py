"""Whatever a user gets wrong is answered by one line that says what, and exit code 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.checkpoints import make_checkpoint
from tests.commands import run_command
from tests.engines import edit_manifest

Damage = Callable[[Path], None]


def expect_refusal(capfd: pytest.CaptureFixture[str], says: str, *arguments: object) -> None:
    code, _, err = run_command(capfd, *arguments)
    assert code == 2, f"exit code {code}: {err}"
    assert len(err.strip().splitlines()) == 1, err
    assert says in err


def truncate(name: str) -> Damage:
    def damage(directory: Path) -> None:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[: len(data) // 2])

    return damage


def flip_a_bit(pattern: str) -> Damage:
    def damage(directory: Path) -> None:
        file = next(directory.glob(pattern))
        data = bytearray(file.read_bytes())
        data[len(data) * 3 // 4] ^= 1
        file.write_bytes(data)

    return damage


def remove(pattern: str) -> Damage:
    return lambda directory: next(directory.glob(pattern)).unlink()


def manifest(**values: Any) -> Damage:
    return lambda engine: edit_manifest(engine, lambda data: data.update(values))


def kernels(**values: Any) -> Damage:
    return lambda engine: edit_manifest(engine, lambda data: [library.update(values) for library in data["kernels"]])


def first_file_outside(engine: Path) -> None:
    edit_manifest(engine, lambda data: data["files"][0].update(path="../outside"))


UNLOADABLE = {
    "truncated manifest": (truncate("manifest.json"), "truncated"),
    "corrupted manifest": (flip_a_bit("manifest.json"), "corrupted"),
    "no manifest": (remove("manifest.json"), "manifest.json"),
    "unknown field": (manifest(surprise=1), "surprise"),
    "newer schema": (manifest(schema_version=99), "newer xllmc"),
    "older schema": (manifest(schema_version=0), "older xllmc"),
    "newer abi": (manifest(abi_version=99), "newer xllmc"),
    "wrong instruction set": (kernels(isa="armv9-sme"), "armv9-sme"),
    "newer C library": (kernels(glibc="9.99"), "glibc 9.99"),
    "truncated weights": (truncate("weights.safetensors"), "weights.safetensors"),
    "truncated plan": (truncate("plan.json"), "plan.json"),
    "no weights": (remove("weights.safetensors"), "weights.safetensors"),
    "no kernels": (remove("kernels/*.so"), "kernels/"),
    "file outside": (first_file_outside, "../outside"),
}

CORRUPTED = ("weights.safetensors", "kernels/*.so", "plan.json", "graph/*.txt", "tokenizer/tokenizer.json")


@pytest.fixture
def engine(engine_dir, tmp_path: Path) -> Path:
    return Path(shutil.copytree(engine_dir("gpt2", "fp32"), tmp_path / "engine"))


@pytest.mark.parametrize("fault", UNLOADABLE)
def test_a_damaged_engine_is_not_loaded(fault: str, engine: Path, capfd):
    damage, says = UNLOADABLE[fault]
    damage(engine)
    expect_refusal(capfd, says, "generate", engine, "--prompt", "def")


@pytest.mark.parametrize("pattern", CORRUPTED)
def test_a_check_finds_a_changed_bit(pattern: str, engine: Path, capfd):
    assert run_command(capfd, "inspect", engine, "--check").code == 0
    flip_a_bit(pattern)(engine)
    expect_refusal(capfd, pattern.rpartition("*")[2], "inspect", engine, "--check")


@pytest.mark.parametrize("command", [("generate", "--prompt", "def"), ("inspect",)], ids=lambda c: c[0])
def test_a_path_that_holds_no_engine_is_refused(command: tuple[str, ...], tmp_path: Path, capfd):
    name, *options = command
    expect_refusal(capfd, "not an engine directory", name, tmp_path / "none", *options)


TENSOR = "transformer.h.0.mlp.c_fc.weight"


def change_tensor(change: Callable[[np.ndarray], np.ndarray | None]) -> Damage:
    def damage(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        changed = change(tensors.pop(TENSOR))
        if changed is not None:
            tensors[TENSOR] = changed
        save_file(tensors, model / "model.safetensors", {"format": "pt"})

    return damage


def config(**values: Any) -> Damage:
    def damage(model: Path) -> None:
        file = model / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return damage


def pickle_only(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def lose_a_shard(model: Path) -> None:
    make_checkpoint("gpt2", model, shard_bytes=50_000)
    (model / "model.safetensors").unlink(missing_ok=True)
    sorted(model.glob("*.safetensors"))[0].unlink()


UNCOMPILABLE = {
    "missing tensor": (change_tensor(lambda values: None), TENSOR),
    "misshapen tensor": (change_tensor(lambda values: np.ascontiguousarray(values[:, 1:])), TENSOR),
    "mistyped tensor": (change_tensor(lambda values: values.astype(np.int32)), TENSOR),
    "pickle-only checkpoint": (pickle_only, "pickle"),
    "truncated weights": (truncate("model.safetensors"), "truncated"),
    "no weights": (remove("model.safetensors"), "model.safetensors"),
    "missing shard": (lose_a_shard, "missing"),
    "no config": (remove("config.json"), "config.json"),
    "damaged config": (truncate("config.json"), "config.json"),
    "unknown architecture": (config(model_type="nonesuch", architectures=["NonesuchForCausalLM"]), "nonesuch"),
    "encoder": (config(model_type="bert", architectures=["BertForMaskedLM"]), "bert"),
    "heads that do not divide": (config(n_head=5), "divisible"),
    "remote code": (config(model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Mine"}), "mine"),
}


@pytest.mark.parametrize("fault", UNCOMPILABLE)
def test_a_bad_model_is_not_compiled(fault: str, checkpoint, tmp_path: Path, capfd):
    damage, says = UNCOMPILABLE[fault]
    model = Path(shutil.copytree(checkpoint("gpt2"), tmp_path / "model"))
    damage(model)
    expect_refusal(capfd, says, "compile", model, "-o", tmp_path / "out.engine")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--no-such-option",), "--no-such-option"),
        (("--dtype", "fp7"), "fp7"),
        (("--target", "abacus"), "abacus"),
        (("--max-context", "0"), "0"),
        (("--max-context", "100000"), "100000"),
        (("--isa", "z80"), "z80"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_bad_compile_option_is_refused(options: tuple[str, ...], says: str, checkpoint, tmp_path: Path, capfd):
    expect_refusal(capfd, says, "compile", checkpoint("gpt2"), "-o", tmp_path / "out.engine", *options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--prompt"),
        (("--prompt", "def", "--no-such-option"), "--no-such-option"),
        (("--prompt", "def", "--temperature", "-1"), "temperature"),
        (("--prompt", "def", "--top-p", "1.5"), "top_p"),
        (("--prompt", "def", "--min-p", "-0.5"), "min_p"),
        (("--prompt", "def", "--top-k", "-3"), "top_k"),
        (("--prompt", "def", "--max-tokens", "-1"), "max_tokens"),
        (("--prompt", "def " * 600), "512"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_a_bad_generate_option_is_refused(options: tuple[str, ...], says: str, engine_dir, capfd):
    expect_refusal(capfd, says, "generate", engine_dir("gpt2", "fp32"), *options)


def test_an_output_that_is_something_else_is_kept(checkpoint, tmp_path: Path, capfd):
    (tmp_path / "thesis.txt").write_text("years of work")
    expect_refusal(capfd, "not an xllmc engine", "compile", checkpoint("gpt2"), "-o", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_unreachable_model_is_refused(tmp_path: Path, capfd):
    expect_refusal(capfd, "nobody/nothing", "compile", "nobody/nothing", "-o", tmp_path / "out.engine")


def test_an_unknown_command_is_refused(capfd):
    expect_refusal(capfd, "transmogrify", "transmogrify")
