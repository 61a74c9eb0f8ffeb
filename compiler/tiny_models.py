"""Fixed tiny models, one of each family whose every feature is tested: small enough to compile in a second.

``xllmc kernels-diff`` generates their kernels. To change a configuration is to change what a baseline means.
"""

from typing import Any, NamedTuple

DTYPES = ("bf16", "fp32")

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    },
    "qwen3": {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "sliding_window": 8,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "vocab_size": 320,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 512,
        "tie_word_embeddings": True,
    },
}
"""Family to values of its configuration."""

TOKENS = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}


class TinyModel(NamedTuple):
    family: str
    dtype: str
    """``bf16`` or ``fp32``."""

    @property
    def name(self) -> str:
        return f"{self.family}-{self.dtype}"

    @property
    def config(self) -> dict[str, Any]:
        return CONFIGS[self.family] | TOKENS


TINY_MODELS = tuple(TinyModel(family, dtype) for family in CONFIGS for dtype in DTYPES)
