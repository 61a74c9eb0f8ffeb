"""Shapes and options that families differ in, each against transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import make_checkpoint, probe_tokens, reference_logits, relative_difference
from tests.engines import compile_engine, load_engine

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied, no grouping, no bias": (
        "llama",
        {
            "tie_word_embeddings": True,
            "num_key_value_heads": 4,
            "attention_bias": False,
            "mlp_bias": False,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        },
    ),
    "qwen3, untied, biased, uneven sizes": (
        "qwen3",
        {
            "tie_word_embeddings": False,
            "attention_bias": True,
            "hidden_size": 72,
            "intermediate_size": 100,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 24,
        },
    ),
    "qwen3, windows in later layers": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    ),
    "gemma2, no caps, window over a page": (
        "gemma2",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": 33},
    ),
    "gpt2, wide inner layer, scaled by layer": (
        "gpt2",
        {"n_inner": 200, "scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_computes_what_transformers_computes(variant: str, tmp_path: Path):
    family, overrides = VARIANTS[variant]
    model = make_checkpoint(family, tmp_path / "model", seed=3, **overrides)
    tokens = probe_tokens(80, seed=3)
    with load_engine(compile_engine(model, tmp_path / "out.engine")) as engine:
        assert relative_difference(engine.logits(tokens), reference_logits(model, tokens)) < 1e-4


def test_a_sharded_bfloat16_checkpoint_compiles_to_float32(tmp_path: Path):
    model = make_checkpoint("gemma2", tmp_path / "model", dtype=torch.bfloat16, shard_bytes=60_000)
    assert len(list(model.glob("*.safetensors"))) > 1
    tokens = probe_tokens(40)
    with load_engine(compile_engine(model, tmp_path / "out.engine")) as engine:
        assert relative_difference(engine.logits(tokens), reference_logits(model, tokens)) < 1e-4
