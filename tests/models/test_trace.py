"""A traced graph is the model: interpreted, it gives transformers' logits; what it cannot be, it says."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.verify import verify
from xllmc.compiler.weight_source import CheckpointSource
from xllmc.models.config import load_config
from xllmc.models.seams import Masks
from xllmc.models.trace import TraceOptions, eos_token_ids, trace
from xllmc.runtime.artifact.errors import CheckpointError

from tests.checkpoints import FAMILIES, probe_tokens, reference_logits, relative_difference
from tests.interpreting import interpreted_logits
from tests.programs import symbols_of

LENGTH = 40
SMALL = {
    "vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 48, "max_position_embeddings": 64, "head_dim": 16,
}  # fmt: skip


def traced(directory: Path) -> tuple[Program, CheckpointSource]:
    source = CheckpointSource(directory)
    return trace(load_config(directory), TraceOptions("f32"), source.names()).program, source


@pytest.mark.parametrize("family", FAMILIES)
def test_the_traced_graph_interpreted_is_the_model(family, checkpoint):
    program, source = traced(checkpoint(family))
    verify(program)
    tokens = probe_tokens(LENGTH)
    logits = interpreted_logits(program, source, tokens, program.constants.__getitem__)
    assert relative_difference(logits, reference_logits(checkpoint(family), tokens)) < 1e-5


def test_symbols_stay_general(checkpoint):
    program, _ = traced(checkpoint("gemma2"))
    assert symbols_of(program) == {"T", "S", "S+1", "R", "B"}


def test_layers_share_a_block_table_where_their_windows_agree(checkpoint):
    program, _ = traced(checkpoint("gemma2"))
    assert [g.window for g in program.groups] == [8, None]
    assert {kind.group for kind in program.states.values()} == {0, 1}


def test_recipes_speak_the_checkpoints_names(checkpoint):
    """GPT-2's own files name tensors without the prefix that transformers' model has."""
    program, source = traced(checkpoint("gpt2"))
    without = {name.removeprefix("transformer."): name for name in source.names()}
    renamed, sources = trace(load_config(checkpoint("gpt2")), TraceOptions("f32"), list(without))
    assert sources.unread == ()
    leaves = {leaf.attribute("name") for w in renamed.weights.values() for leaf in w.recipe.sources()}
    assert leaves <= set(without)
    assert len(renamed.weights) == len(program.weights)


def test_tied_weights_are_read_once(checkpoint):
    program, _ = traced(checkpoint("gemma2"))
    sources = [leaf.attribute("name") for w in program.weights.values() for leaf in w.recipe.sources()]
    assert sources.count("model.embed_tokens.weight") == 1
    assert "lm_head.weight" not in sources


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("bloom", {"n_layer": 1, "n_head": 2, "hidden_size": 32, "vocab_size": 32}, "bloom"),
        ("falcon", {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 32}, "falcon"),
        ("gpt_oss", {**SMALL, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": None}, "attention"),
        ("mixtral", {**SMALL, "num_local_experts": 2}, r"which has no import rule.*models/aten\.py"),
    ],
)
def test_what_cannot_be_traced_says_what_is_missing(family, options, reason):
    config = AutoConfig.for_model(family, **options)
    with pytest.raises(CheckpointError, match=reason):
        trace(config, TraceOptions("f32"))


def test_a_context_longer_than_the_model_is_refused(checkpoint):
    with pytest.raises(CheckpointError, match="max_position_embeddings"):
        trace(load_config(checkpoint("llama")), TraceOptions("f32", max_context=10**6))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "martian"}, "unknown architecture"),
        ({"model_type": None}, "unknown architecture"),
        ({"hidden_size": "wide"}, "not a valid llama configuration"),
        ({"num_attention_heads": 5}, "llama"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised checkpoints are not supported"),
    ],
)
def test_a_broken_config_is_one_error(change, reason, checkpoint, tmp_path):
    config = json.loads((checkpoint("llama") / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=reason):
        trace(load_config(tmp_path), TraceOptions("f32"))


def test_a_local_mask_that_is_no_window_is_refused():
    masks = Masks()
    masks(mask_function=None)
    masks(local_size=8)
    masks.require_windows([8], "gemma2")
    with pytest.raises(CheckpointError, match=r"llama4_text masks attention locally \(to \[8\] positions\)"):
        masks.require_windows([], "llama4_text")


def test_tracing_leaves_the_configuration_as_it_was(checkpoint):
    config = load_config(checkpoint("qwen3"))
    before = config._attn_implementation
    trace(config, TraceOptions("f32"))
    assert config._attn_implementation == before


@pytest.mark.parametrize("text", ["{", "[]", '{"eos_token_id": "a"}'])
def test_a_broken_generation_config_is_one_error(text, checkpoint, tmp_path):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError):
        eos_token_ids(tmp_path, load_config(checkpoint("qwen3")))


@pytest.mark.parametrize("window", [0, -3])
def test_an_impossible_window_is_refused(window):
    config = AutoConfig.for_model("gemma2", **SMALL, sliding_window=window)
    with pytest.raises(CheckpointError, match="sliding_window must be at least 1"):
        trace(config, TraceOptions("f32"))


def test_an_empty_part_of_a_concatenation_is_left_out():
    """Phi-3 rotates whole heads by default, and joins them with the nothing that is left."""
    program, _ = trace(AutoConfig.for_model("phi3", **SMALL, pad_token_id=0), TraceOptions("f32"))
    verify(program)


@pytest.mark.parametrize("family", ["gptj", "gpt_neo"])
def test_a_model_without_the_attention_interface_is_told_so(family):
    with pytest.raises(CheckpointError, match="does not use transformers' attention interface"):
        trace(AutoConfig.for_model(family), TraceOptions("f32"))


def test_tensors_that_the_model_has_no_place_for_are_listed(checkpoint):
    extra = [*CheckpointSource(checkpoint("llama")).names(), "model.layers.0.self_attn.q_norm.weight"]
    _, sources = trace(load_config(checkpoint("llama")), TraceOptions("f32"), extra)
    assert sources.unread == ("model.layers.0.self_attn.q_norm.weight",)
