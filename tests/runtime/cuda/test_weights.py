"""Weights on a device: sent at load, replaced in place, or random where an engine has none of its own."""

from pathlib import Path

import numpy as np
import pytest
from xllmc.runtime.artifact.dtypes import bf16_to_f32
from xllmc.runtime.artifact.schema import WeightEntry
from xllmc.runtime.cuda.random_weights import random_block

from tests.runtime.cuda.state_scenarios import updated, weights_of
from tests.runtime.cuda.stub_driver import Gpu
from tests.runtime.cuda.toy_cuda import cuda_manifest, write_cuda_toy
from tests.runtime.toy import COEFFICIENTS, VOCAB, checkpoint, packed, reference_logits

TOKENS = [3, 200, 7, 9]


def test_an_update_takes_the_place_of_the_weights_before(gpu: Gpu, cuda_toy: Path, toy_library: Path) -> None:
    record = gpu.play(updated, cuda_toy, toy_library, TOKENS)
    before, version, after = record.result
    assert version == 1
    assert np.array_equal(before, reference_logits(checkpoint(0), TOKENS))
    assert np.array_equal(after, reference_logits(checkpoint(5), TOKENS))
    between = record.log[record.log.index({"mark": "update"}) : record.log.index({"mark": "updated"})]
    calls = {line["call"] for line in between if "call" in line}
    assert not calls & {"cuMemAlloc", "cuGraphInstantiate", "cuLaunchKernel"}, "graphs go on with the same addresses"


def test_weights_are_sent_as_the_engine_has_them(gpu: Gpu, cuda_toy: Path) -> None:
    found = gpu.play(weights_of, cuda_toy).result
    expected = {name: tensor.values.view(np.uint8) for name, tensor in packed(checkpoint(0)).items()}
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_random_weights_are_made_on_the_device(gpu: Gpu, cubins: Path, tmp_path: Path) -> None:
    manifests = [cuda_manifest(random_weights=seed) for seed in (1, 2)]
    engines = [write_cuda_toy(tmp_path / f"{m.random_weights}.engine", cubins, manifest=m) for m in manifests]
    first, again, other = (gpu.play(weights_of, engine).result for engine in (engines[0], *engines))
    assert np.array_equal(first["all"], again["all"]) and not np.array_equal(first["all"], other["all"])
    values = first["all"].view(np.float32)
    assert values.shape == (VOCAB,) and abs(values.mean() - 1) < 0.01 and 0.01 < values.std() < 0.03
    assert np.array_equal(first["coefficients"].view(np.float32), COEFFICIENTS), "a constant is what it is"
    assert "random weights" in str(first["said"])


@pytest.mark.parametrize("shape", [(3, 5), (64,)])
def test_random_numbers_are_small_and_differ_by_row(shape: tuple[int, ...]) -> None:
    entry = WeightEntry(name="w", dtype="bf16", shape=shape, recipe=None)
    values = bf16_to_f32(random_block(entry, 0, 1000).values)
    assert abs(values.mean() - (len(shape) == 1)) < 0.01 and 0.015 < values.std() < 0.025
    whole = WeightEntry(name="w", dtype="i32", shape=shape, recipe=None)
    assert not random_block(whole, 0, 10).values.any()
