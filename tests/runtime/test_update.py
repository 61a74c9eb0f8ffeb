import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from xllmc.runtime.artifact.dtypes import bf16_to_f32, f32_to_bf16
from xllmc.runtime.artifact.errors import CheckpointError, OptionError
from xllmc.runtime.artifact.recipe import Tensor
from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import SamplingParams

from tests.runtime.toy import checkpoint, reference_logits, toy_manifest, write_toy

TOKENS = [3, 200, 7, 9]


def packed_bytes(engine: Engine) -> dict[str, bytes]:
    return {name: engine.weights.tensor(name).values.tobytes() for name in engine.weights.entries}


@pytest.mark.parametrize("huge_pages", [False, True])
def test_an_update_gives_the_bytes_of_compiling_the_new_checkpoint(
    toy_engine: Path, toy_library: Path, tmp_path: Path, huge_pages: bool
) -> None:
    with (
        Engine.load(toy_engine, kv_tokens=64, huge_pages=huge_pages) as engine,
        Engine.load(write_toy(tmp_path / "new.engine", toy_library, seed=1), kv_tokens=64) as compiled,
    ):
        before = packed_bytes(engine)
        assert engine.update_weights(checkpoint(1)) == 1
        assert before != packed_bytes(engine) == packed_bytes(compiled)
        assert np.array_equal(engine.logits(TOKENS), reference_logits(checkpoint(1), TOKENS))


def test_a_model_directory_is_a_source_too(engine: Engine, tmp_path: Path) -> None:
    save_file(checkpoint(2) | {"lm_head.weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    engine.update_weights(tmp_path, version=7)
    assert engine.weights.version == 7
    assert np.array_equal(engine.logits(TOKENS), reference_logits(checkpoint(2), TOKENS))


def test_narrow_floats_are_widened(engine: Engine) -> None:
    exact = {name: bf16_to_f32(f32_to_bf16(values)) for name, values in checkpoint(3).items()}
    engine.update_weights({name: Tensor(f32_to_bf16(values), "bf16") for name, values in exact.items()})
    assert np.array_equal(engine.logits(TOKENS), reference_logits(exact, TOKENS))
    halves = {name: values.astype(np.float16) for name, values in exact.items()}
    engine.update_weights(halves)
    widened = {name: values.astype(np.float32) for name, values in halves.items()}
    assert np.array_equal(engine.logits(TOKENS), reference_logits(widened, TOKENS))


def without(name: str) -> dict[str, Any]:
    return {key: values for key, values in checkpoint(1).items() if key != name}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": (without("all.weight"), "lacks the tensor all.weight"),
    "renamed": (without("all.weight") | {"all.weights": 0}, r"all\.weight; the nearest name there is all\.weights"),
    "all missing": ({}, r"lacks the tensor all\.weight.*also window\.weight"),
    "misshapen": (checkpoint(1) | {"all.weight": np.zeros((2, 2), np.float32)}, r"shape \[260\], got \[2, 2\]"),
    "integers": (checkpoint(1) | {"window.weight": np.zeros(260, np.int32)}, "got int32"),
    "a list": (checkpoint(1) | {"window.weight": [0.0] * 260}, "got list"),
    "strangers only": ({"x": np.zeros(1), 1: 2}, r"lacks the tensor all\.weight"),
    "ambiguous": (
        without("all.weight") | {"a.all.weight": np.zeros(260), "b.all.weight": np.zeros(260)},
        r"one tensor for all\.weight, got a\.all\.weight and b\.all\.weight",
    ),
    "a tensor of a list": (checkpoint(1) | {"window.weight": Tensor([0.0] * 260, "f32")}, "numpy array of f32"),  # type: ignore[arg-type]
    "quantised": (checkpoint(1) | {"window.weight": Tensor(np.zeros(260, np.int8), "i8")}, "got i8"),
}


@pytest.mark.parametrize(("source", "message"), BAD.values(), ids=BAD)
def test_a_bad_update_leaves_the_engine_as_it_was(engine: Engine, source: dict[str, Any], message: str) -> None:
    before = packed_bytes(engine)
    with pytest.raises(CheckpointError, match=message):
        engine.update_weights(source)
    assert packed_bytes(engine) == before
    assert engine.weights.version == 0


def test_tensors_the_engine_does_not_use_are_ignored(engine: Engine) -> None:
    engine.update_weights(checkpoint(1) | {"lm_head.weight": np.zeros(1), "rotary.inv_freq": "anything"})
    assert np.array_equal(engine.logits(TOKENS), reference_logits(checkpoint(1), TOKENS))


def test_names_may_have_the_base_models_prefix_or_lack_it(engine: Engine, tmp_path: Path) -> None:
    longer = {f"transformer.{name}": values for name, values in checkpoint(1).items()}
    engine.update_weights(longer | {"lm_head.weight": np.zeros(1, np.float32)})
    assert np.array_equal(engine.logits(TOKENS), reference_logits(checkpoint(1), TOKENS))
    save_file({f"model.{name}": values for name, values in checkpoint(2).items()}, tmp_path / "model.safetensors")
    engine.update_weights(tmp_path)
    assert np.array_equal(engine.logits(TOKENS), reference_logits(checkpoint(2), TOKENS))


def test_names_may_lack_the_prefix_they_were_compiled_with(toy_library: Path, tmp_path: Path) -> None:
    manifest = toy_manifest()
    entries = tuple(
        entry.model_copy(update={"recipe": json.loads(json.dumps(entry.recipe).replace('.weight"', '.b.weight"'))})
        for entry in manifest.weights
    )
    write_toy(tmp_path / "e", toy_library, manifest=manifest.model_copy(update={"weights": entries}))
    with Engine.load(tmp_path / "e", kv_tokens=64) as engine:
        with pytest.raises(CheckpointError, match=r"one tensor b\.weight for two"):
            engine.update_weights({"b.weight": np.zeros(260, np.float32)})
        wanted = {name.replace(".weight", ".b.weight"): values for name, values in checkpoint(1).items()}
        engine.update_weights({f"m.{name}": values for name, values in wanted.items()})
        assert np.array_equal(engine.logits(TOKENS), reference_logits(checkpoint(1), TOKENS))


@pytest.mark.parametrize("source", [None, 5, [1]])
def test_sources_of_another_kind_are_refused(engine: Engine, source: Any) -> None:
    with pytest.raises(OptionError, match="must be a mapping of names to arrays, or the path"):
        engine.update_weights(source)


@pytest.mark.parametrize("version", ["3", 99.5, True, 1 << 70])
def test_versions_are_whole_numbers(engine: Engine, version: Any) -> None:
    with pytest.raises(OptionError, match="version must be a whole number"):
        engine.update_weights(checkpoint(1), version=version)


def test_bad_directories_are_named(engine: Engine, tmp_path: Path) -> None:
    save_file(without("window.weight"), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks the tensor window\.weight"):
        engine.update_weights(tmp_path)
    save_file(checkpoint(1) | {"window.weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"shape \[260\], got \[3\]"):
        engine.update_weights(str(tmp_path))


def test_versions_only_grow_and_every_token_knows_its_own(engine: Engine) -> None:
    engine.update_weights(checkpoint(1), version=5)
    for version in (5, 4):
        with pytest.raises(OptionError, match=f"above the present 5, got {version}"):
            engine.update_weights(checkpoint(1), version=version)
    chunks = []
    for chunk in engine.stream([1, 2], SamplingParams(max_tokens=40, ignore_eos=True)):
        if not chunks:
            engine.update_weights(checkpoint(2))
        chunks.append(chunk)
    versions = [chunk.version for chunk in chunks]
    assert versions == sorted(versions) and versions[0] == 5 and versions[-1] == 6


def test_recipes_are_stored_as_they_are_replayed(toy_engine: Path) -> None:
    manifest = json.loads((toy_engine / "manifest.json").read_text())
    assert manifest["weights"][1]["recipe"]["op"] == "add_scalar"
