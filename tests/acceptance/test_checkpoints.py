"""The random checkpoints are sharp enough to notice whatever an engine might leave out."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.checkpoints import (
    CONFIGS,
    FAMILIES,
    FEATURES,
    Feature,
    make_checkpoint,
    probe_tokens,
    reference_logits,
    relative_difference,
)

LENGTH = 80
"""Longer than the window, llama's original rope length and two pages."""

FAR = 0.1
"""A thousand times what float32 parity allows."""


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f"{f.family}: {f.name}")
def test_leaving_a_feature_out_changes_the_logits_by_far(feature: Feature, checkpoint, tmp_path: Path):
    tokens = probe_tokens(LENGTH)
    full = reference_logits(checkpoint(feature.family), tokens)
    directory = checkpoint(feature.family)
    if feature.config is not None:
        directory = make_checkpoint(feature.family, tmp_path, **feature.config)
    without = reference_logits(directory, tokens, patch=feature.values or feature.code)
    assert relative_difference(without, full) > FAR


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_random(family: str, checkpoint):
    tensors = load_file(checkpoint(family) / "model.safetensors")
    assert tensors
    assert [name for name, values in tensors.items() if np.unique(values).size < values.size // 2] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_sharding_changes_no_value(family: str, checkpoint, tmp_path: Path):
    make_checkpoint(family, tmp_path, shard_bytes=50_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    tokens = probe_tokens(9)
    assert np.array_equal(reference_logits(tmp_path, tokens), reference_logits(checkpoint(family), tokens))


def test_every_family_has_a_config():
    assert set(CONFIGS) == set(FAMILIES)
