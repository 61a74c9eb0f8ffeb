"""An engine computes what transformers computes, however the tokens are fed to it."""

from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import (
    FAMILIES,
    FEATURES,
    Feature,
    make_checkpoint,
    probe_tokens,
    reference_logits,
    relative_difference,
    save_patched,
)
from tests.engines import compile_engine, load_engine
from tests.stepping import Step, chunks, decode, one_prefill, random_schedule, step_logits

LENGTH = 80
"""Longer than the window of 8, llama's original rope length of 32, and two pages of 32."""

FLOAT32_BOUND = 1e-4
BFLOAT16_BOUND = 2**-4
"""Of the largest logit; bfloat16 rounds to 2**-9, and these models are as sharp as they are shallow."""
BFLOAT16_MEAN_BOUND = 2**-7
FAR = 0.1

FEEDS = {
    "prefill": one_prefill(LENGTH),
    "decode": decode(LENGTH),
    "page edges": chunks(LENGTH, [31, 1, 1, 30, 1, 1, 15]),
    "whole pages": chunks(LENGTH, [32, 32, 16]),
    "prefill, then decode": chunks(LENGTH, [40] + [1] * 40),
}


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_logits_are_those_of_transformers(family: str, feed: str, checkpoint, loaded):
    tokens = probe_tokens(LENGTH)
    (logits,) = step_logits(loaded(family, "fp32"), [tokens], FEEDS[feed])
    assert relative_difference(logits, reference_logits(checkpoint(family), tokens)) < FLOAT32_BOUND


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_gives_each_sequence_its_own_logits(family: str, checkpoint, loaded):
    sequences = [probe_tokens(length, seed=length) for length in (LENGTH, 33, 64, 7, 32, 65, 1)]
    schedule: list[Step] = random_schedule(np.random.default_rng(0), [len(tokens) for tokens in sequences])
    for tokens, logits in zip(sequences, step_logits(loaded(family, "fp32"), sequences, schedule), strict=True):
        assert relative_difference(logits, reference_logits(checkpoint(family), tokens)) < FLOAT32_BOUND


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_logits_are_near_float32(family: str, checkpoint, loaded):
    tokens = probe_tokens(LENGTH)
    expected = reference_logits(checkpoint(family), tokens)
    logits = loaded(family, "bf16").logits(tokens)
    assert relative_difference(logits, expected) < BFLOAT16_BOUND
    assert np.abs(logits - expected).mean() < BFLOAT16_MEAN_BOUND * np.abs(expected).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_log_probabilities_of_the_next_token(family: str, checkpoint, loaded):
    tokens = probe_tokens(LENGTH)
    logits = reference_logits(checkpoint(family), tokens).astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    scores = loaded(family, "fp32").score(tokens)
    assert scores.dtype == np.float32
    assert np.isnan(scores[0])
    np.testing.assert_allclose(scores[1:], logprobs[np.arange(LENGTH - 1), tokens[1:]], atol=5e-3)


def ids(feature: Feature) -> str:
    return f"{feature.family}: {feature.name}"


@pytest.mark.parametrize("feature", [f for f in FEATURES if f.config is not None], ids=ids)
def test_an_engine_compiled_without_a_feature_fails_the_comparison(feature: Feature, checkpoint, tmp_path: Path):
    tokens = probe_tokens(LENGTH)
    model = make_checkpoint(feature.family, tmp_path / "model", **feature.config or {})
    with load_engine(compile_engine(model, tmp_path / "out.engine")) as engine:
        logits = engine.logits(tokens)
    assert relative_difference(logits, reference_logits(model, tokens)) < FLOAT32_BOUND
    assert relative_difference(logits, reference_logits(checkpoint(feature.family), tokens)) > FAR


@pytest.mark.parametrize("feature", [f for f in FEATURES if f.values is not None], ids=ids)
def test_an_engine_whose_weights_switch_a_feature_off_fails_the_comparison(
    feature: Feature, checkpoint, engine_dir, tmp_path: Path
):
    assert feature.values is not None
    tokens = probe_tokens(LENGTH)
    full = checkpoint(feature.family)
    model = save_patched(full, feature.values, tmp_path)
    with load_engine(engine_dir(feature.family, "fp32")) as engine:
        engine.update_weights(model)
        logits = engine.logits(tokens)
    assert relative_difference(logits, reference_logits(model, tokens)) < FLOAT32_BOUND
    assert relative_difference(logits, reference_logits(full, tokens)) > FAR
