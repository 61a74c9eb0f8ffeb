"""Tiny models through all of it: compiled for CUDA, loaded, scheduled, captured, and run by Triton's interpreter."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from xllmc.compiler.driver import CompileOptions, compile_model
from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import SamplingParams

from tests.checkpoints import reference_logits
from tests.runtime.cuda.interpreted_scenarios import LOADING, completions, logits_of, profiled
from tests.runtime.cuda.stub_driver import Gpu, build_stub

PROMPTS = [[3, 200, 7, 9, 11, 23, 5], [5, 6], list(range(40, 80))]


@pytest.fixture(scope="module")
def interpreting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpu]:
    """A process with the stub driver in which Triton has not been imported yet."""
    process = Gpu(build_stub(tmp_path_factory.mktemp("stub")))
    yield process
    process.close()


@pytest.fixture(scope="module")
def cuda_engine(checkpoint, tmp_path_factory: pytest.TempPathFactory):
    """Family to its engine for sm_90 in float32."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family) / "cuda.engine"
            options = CompileOptions(target="cuda:sm_90", dtype="fp32", verification="structure")
            compile_model(checkpoint(family), made[family], options)
        return made[family]

    return get


@pytest.mark.parametrize(
    "family",
    ["qwen3", "gemma2", pytest.param("llama", marks=pytest.mark.slow), pytest.param("gpt2", marks=pytest.mark.slow)],
)
def test_logits_are_those_of_transformers(family: str, checkpoint, cuda_engine, interpreting: Gpu):
    found = interpreting.play(logits_of, cuda_engine(family), PROMPTS).result
    for prompt, logits in zip(PROMPTS, found, strict=True):
        expected = reference_logits(checkpoint(family), prompt)
        assert np.abs(logits - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0, max_tokens=6, logprobs=2),
        SamplingParams(seed=5, temperature=0.9, top_k=20, repetition_penalty=1.2, max_tokens=6, n=2, logprobs=0),
    ],
    ids=["greedy", "sampled"],
)
def test_requests_give_what_they_give_on_the_cpu(params: SamplingParams, engine_dir, cuda_engine, interpreting: Gpu):
    """Prompts share steps, and the longest is cut into several."""
    with Engine.load(engine_dir("qwen3", "fp32"), threads=1, **LOADING) as engine:
        expected = engine.generate(PROMPTS, params)
    found = interpreting.play(completions, cuda_engine("qwen3"), PROMPTS, params).result
    assert [replace(one, logprobs=None) for one in found] == [replace(one, logprobs=None) for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours.logprobs, theirs.logprobs, strict=True):
            assert a.model == pytest.approx(b.model, abs=1e-4)
            assert a.sampled == pytest.approx(b.sampled, abs=1e-4)


def test_kernels_are_timed_one_by_one(cuda_engine, interpreting: Gpu):
    """As ``inspect --cost`` does; what a step's sizes leave out takes no time and is not counted."""
    costs, capture = interpreting.play(profiled, cuda_engine("qwen3")).result
    assert capture.graphs > 4 and capture.launches > 100 and capture.seconds > 0
    linear = [cost for cost in costs if cost.kind == "linear/f32"]
    assert len(linear) >= 4 and all(cost.measured > 0 and cost.predicted > 0 for cost in linear)
