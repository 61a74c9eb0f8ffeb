"""Faults that a lowering could have: each one shows in the logits, or an operator refuses it."""

from pathlib import Path

import pytest

from tests.codegen.ascend.graph.models import BOUNDS, largest_difference, load_text, run_module

FAULTS = {
    "no scale": ("qwen3", "scale=0.1767766952966369,", ""),
    "no causal mask": ("qwen3", "sparse_mode=3", "sparse_mode=0"),
    "key heads for all queries": ("llama", "num_key_value_heads=2", "num_key_value_heads=4"),
    "lengths exchanged": ("qwen3", "lengths=step.query_ends", "lengths=step.kv_lengths"),
    "queries for positions": ("qwen3", "lengths_kv=step.kv_lengths", "lengths_kv=step.query_ends"),
    "pages of another size": ("qwen3", "block_size=128", "block_size=256"),
    "pages of another layout": ("qwen3", "cache_mode='Norm'", "cache_mode='PA_NZ'"),
    "another layout of queries": ("qwen3", "input_layout='TND'", "input_layout='BSH'"),
    "values for keys": ("llama", "values_kv_0.flatten(2)", "keys_kv_0.flatten(2)"),
    "another layer's cache": ("qwen3", "caches['kv.1'].keys", "caches['kv.0'].keys"),
    "norm and sum exchanged": ("qwen3", "normed_4, _, total = ", "total, _, normed_4 = "),
    "gate and up exchanged": ("qwen3", ".unbind(1)]", ".unbind(1)[::-1]]"),
    "rows left in turns": (
        "qwen3",
        "halves(stored['model.layers.0.mlp.gate_up.weight'], 96)",
        "stored['model.layers.0.mlp.gate_up.weight']",
    ),
    "neighbours rotated": ("qwen3", "rotary_mode='half'", "rotary_mode='interleave'"),
    "sine for cosine": ("qwen3", ", cos, sin,", ", sin, cos,"),
    "no rotation of keys": (
        "qwen3",
        "npu.npu_rotary_mul(normed_3[None], cos, sin, rotary_mode='half')[0]",
        "normed_3",
    ),
    "no bias": ("llama", ", weights['model.layers.0.self_attn.o_proj.bias']", ""),
    "no soft cap": ("gemma2", "if softcap:", "if softcap < 0:"),
    "no window": ("gemma2", "* PAGE_TOKENS, 8)", "* PAGE_TOKENS, 0)"),
    "a window too wide": ("gemma2", "place > at - window", "place >= at - window"),
    "one position too few": ("gemma2", "(place <= at)", "(place < at)"),
    "sequences by their ends": ("gemma2", "right=True", "right=False"),
    "other pages": ("qwen3", "clamp(min=0)", "clamp(min=3)"),
    "additional output forgotten": ("gpt2", "additional_output=True", "additional_output=False"),
    "rows in order": ("qwen3", "step.inputs['logit_rows']", "step.inputs['logit_rows'].flip(0)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_does_not_go_unnoticed(fault, case, tmp_path: Path):
    family, right, wrong = FAULTS[fault]
    made = case(family, "bf16")
    assert right in made.graph.text
    module = load_text(made.graph.text.replace(right, wrong), tmp_path)
    try:
        difference = largest_difference(run_module(module, made.model), made.expected)
    except (ValueError, RuntimeError, IndexError):
        return
    assert difference > 2 * BOUNDS["bf16"], difference
