"""Import rules that only some families need: their traced graphs, interpreted, are the models."""

import zlib
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from xllmc.compiler.ir.verify import verify
from xllmc.compiler.weight_source import CheckpointSource
from xllmc.models.config import load_config
from xllmc.models.trace import TraceOptions, trace

from tests.checkpoints import probe_tokens, reference_logits, relative_difference
from tests.interpreting import interpreted_logits

SMALL = {
    "vocab_size": 331, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None,
    "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
RULES = {
    "layer norms without weight and bias, and clamped projections": ("olmo", {"clip_qkv": 0.5}),
    "layer norms without bias, stacked heads": ("stablelm", {"qk_layernorm": True}),
    "rotary pairs side by side": ("cohere", {"use_qk_norm": True, "logit_scale": 0.25}),
    "repeated halves of rotary tables": ("glm", {"head_dim": 16}),
    "arithmetic on positions": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "one of three selected": ("persimmon", {}),
    "a concatenation of one part": ("phi3", {}),
}


def random_checkpoint(family: str, options: dict[str, object], directory: Path) -> Path:
    """A model directory in which every parameter is random, around its initial mean."""
    config = AutoConfig.for_model(family, **SMALL | options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        scale = 0.3 if parameter.ndim == 1 else 1.5 * parameter.shape[-1] ** -0.5
        parameter.data.copy_(parameter.data.mean() * (parameter.ndim == 1) + scale * values)
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("rule", RULES)
def test_a_family_that_needs_the_rule_is_traced_right(rule: str, tmp_path: Path):
    model = random_checkpoint(*RULES[rule], tmp_path)
    source = CheckpointSource(model)
    program = trace(load_config(model), TraceOptions("f32"), source.names()).program
    verify(program)
    tokens = probe_tokens(40)
    logits = interpreted_logits(program, source, tokens, program.constants.__getitem__)
    assert relative_difference(logits, reference_logits(model, tokens)) < 1e-5


def test_one_part_is_not_copied(tmp_path: Path):
    """phi3 concatenates what it turns with what it leaves, which may be nothing."""
    program = trace(AutoConfig.for_model("phi3", **SMALL), TraceOptions("f32")).program
    assert all(len(node.args) > 1 for node in program.forward.calls if node.target.name == "concat")
