"""Small Hugging Face model directories with every tensor random, and what transformers computes from them.

Default initialisation proves little (norm weights of one, biases of zero, tiny logits), so here every tensor is drawn
anew, and each checkpoint's logits are checked to reach 1. A tensor's values depend on its name and the seed alone: a
checkpoint with a feature left out shares all other tensors with the full one.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2")
TOKENIZER_VOCAB = 300
"""Entries of the tokenizer; models have a few more rows, as padded checkpoints do."""

END, TURN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEXT = """\
def window(values, size):
    for start in range(len(values) - size + 1):
        yield values[start : start + size]

The cat sat on the mat, and the dog lay down beside the cat. Über die Brücke, naïve café, 東京.
"""

Config = dict[str, Any]
Patch = Callable[[PreTrainedModel], None]


def llama_config() -> Config:
    """Biases everywhere, grouped queries, a head dimension of its own, and llama-3 rope scaling that bites early."""
    return {
        "vocab_size": 331,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    }


def qwen3_config() -> Config:
    """Query and key norms, one key-value head for all queries, tied embeddings."""
    return {
        "vocab_size": 352,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    }


def gemma2_config() -> Config:
    """Windows of 8 in every other layer, both soft caps low, ``1 + w`` norms, scaled and tied embeddings."""
    return {
        "vocab_size": 347,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "sliding_window": 8,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 15.0,
        "tie_word_embeddings": True,
    }


def gpt2_config() -> Config:
    """LayerNorms and projections with biases, Conv1D weights, learned positions, tied embeddings."""
    return {"vocab_size": 349, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "tie_word_embeddings": True}


CONFIGS: dict[str, Callable[[], Config]] = {
    "llama": llama_config,
    "qwen3": qwen3_config,
    "gemma2": gemma2_config,
    "gpt2": gpt2_config,
}


@dataclass(frozen=True)
class Feature:
    """Something a model computes, and how to leave it out: by config, by values of its weights, or in its code."""

    name: str
    family: str
    config: Config | None = None
    values: Patch | None = None
    code: Patch | None = None


def _plain_norms(model: PreTrainedModel) -> None:
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            weight.data -= 1


def _set_embedding_scale_to_one(model: PreTrainedModel) -> None:
    model.get_input_embeddings().embed_scale.fill_(1)


def _drop(suffix: str) -> Patch:
    def patch(model: PreTrainedModel) -> None:
        found = [name for name, _ in model.named_modules() if name.endswith(suffix)]
        assert found, f"no module ends with {suffix}"
        for name in found:
            model.set_submodule(name, nn.Identity())

    return patch


def _zero(suffix: str) -> Patch:
    def patch(model: PreTrainedModel) -> None:
        found = [p for name, p in model.named_parameters() if name.endswith(suffix)]
        assert found, f"no parameter ends with {suffix}"
        for parameter in found:
            parameter.data.zero_()

    return patch


FEATURES = (
    Feature("attention biases", "llama", config={"attention_bias": False}),
    Feature("mlp biases", "llama", config={"mlp_bias": False}),
    Feature("rope scaling", "llama", config={"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    Feature("query bias", "llama", values=_zero("q_proj.bias")),
    Feature("key bias", "llama", values=_zero("k_proj.bias")),
    Feature("value bias", "llama", values=_zero("v_proj.bias")),
    Feature("output bias", "llama", values=_zero("o_proj.bias")),
    Feature("rope theta", "qwen3", config={"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    Feature("query norm", "qwen3", code=_drop("q_norm")),
    Feature("key norm", "qwen3", code=_drop("k_norm")),
    Feature("attention soft cap", "gemma2", config={"attn_logit_softcapping": None}),
    Feature("final soft cap", "gemma2", config={"final_logit_softcapping": None}),
    Feature("window", "gemma2", config={"sliding_window": 4096}),
    Feature("query scale", "gemma2", config={"query_pre_attn_scalar": 256}),
    Feature("1 + w", "gemma2", values=_plain_norms),
    Feature("embedding scale", "gemma2", code=_set_embedding_scale_to_one),
    Feature("norm biases", "gpt2", values=_zero("ln_1.bias")),
    Feature("final norm bias", "gpt2", values=_zero("ln_f.bias")),
    Feature("attention biases", "gpt2", values=_zero("c_attn.bias")),
    Feature("projection biases", "gpt2", values=_zero("c_proj.bias")),
    Feature("mlp biases", "gpt2", values=_zero("c_fc.bias")),
    Feature("positions", "gpt2", values=_zero("wpe.weight")),
    Feature("attention scale", "gpt2", config={"scale_attn_weights": False}),
)
"""Each of these changes the logits of its family's checkpoint by far."""


def randomise(model: PreTrainedModel, seed: int) -> None:
    """Draw every parameter anew: matrices and embeddings for activations of order one, norms around their identity."""
    unit_offset = model.config.model_type == "gemma2"
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        values = torch.randn(parameter.shape, generator=generator)
        is_norm = name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
        if is_norm:
            values = 0.3 * values + (0.0 if unit_offset else 1.0)
        elif parameter.ndim == 1 or "embed" in name or name.endswith(("wte.weight", "wpe.weight")):
            values = 0.5 * values
        else:
            fan_in = parameter.shape[0] if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else None
            values = 1.5 * values / (fan_in or parameter.shape[1]) ** 0.5
        parameter.data.copy_(values)


@lru_cache
def _tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_VOCAB,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END, TURN, TURN_END],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    assert tokenizer.get_vocab_size() == TOKENIZER_VOCAB
    return tokenizer.to_str()


def save_tokenizer(directory: Path) -> None:
    """A byte-level BPE tokenizer with a chat template, as transformers saves it."""
    tokenizer = Tokenizer.from_str(_tokenizer_json())
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(directory)


def make_checkpoint(
    family: str,
    directory: Path,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int | None = None,
    **overrides: Any,
) -> Path:
    """Write a complete model directory of ``family`` and return it.

    ``overrides`` replace values of the family's config. ``shard_bytes`` splits the weights into files of that size.
    """
    values = CONFIGS[family]() | {"eos_token_id": 0, "bos_token_id": None, "pad_token_id": 0} | overrides
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **values), attn_implementation="eager")
    randomise(model, seed)
    sharding = {} if shard_bytes is None else {"max_shard_size": shard_bytes}
    model.to(dtype).save_pretrained(directory, **sharding)
    save_tokenizer(directory)
    largest = float(np.abs(reference_logits(directory, probe_tokens(64))).max())
    assert largest >= 1, f"{family}: logits must reach 1 for a comparison to mean anything, got {largest}"
    return directory


def probe_tokens(count: int, seed: int = 0) -> list[int]:
    """``count`` random token ids that every family's model and the tokenizer know, without the end token."""
    return np.random.default_rng([seed, count]).integers(3, TOKENIZER_VOCAB, count).tolist()


def save_patched(directory: Path, patch: Patch, out: Path) -> Path:
    """The checkpoint of ``directory`` with its values changed by ``patch``, saved to ``out``, which is returned."""
    model = _reference.__wrapped__(directory)
    patch(model)
    model.save_pretrained(out)
    return out


@lru_cache(maxsize=8)
def _reference(directory: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def reference_logits(directory: Path, token_ids: Sequence[int], patch: Patch | None = None) -> np.ndarray:
    """What transformers computes in eager float32: [T, vocabulary], float32. ``patch`` changes the model first."""
    if patch is None:
        model = _reference(directory)
    else:
        model = _reference.__wrapped__(directory)
        patch(model)
    logits = model(torch.tensor([list(token_ids)]), use_cache=False).logits
    return logits[0].numpy()


def relative_difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest expected magnitude."""
    assert got.shape == expected.shape, f"shapes {got.shape} and {expected.shape}"
    return float(np.abs(got.astype(np.float64) - expected).max() / np.abs(expected).max())
