"""Small models of random weights that calibration compiles: together they launch every kind of kernel."""

from dataclasses import dataclass
from pathlib import Path

from ..compiler.driver import compile_model
from ..compiler.options import CompileOptions
from .models import QWEN3_0_6B, make_model

TOKENIZER_ENTRIES = 2000


@dataclass(frozen=True)
class Geometry:
    """A model of one family, ``hidden`` wide, with the other widths in that family's usual proportion."""

    family: str
    dtype: str
    hidden: int
    layers: int
    vocabulary: int
    held_out: bool = False
    """Not for fitting, but to see how well a fit predicts other models."""

    @property
    def name(self) -> str:
        return f"{self.family} {self.hidden}x{self.layers} {self.dtype}"

    @property
    def config(self) -> dict[str, object]:
        """As in config.json."""
        return {"vocab_size": self.vocabulary, "eos_token_id": 0, "bos_token_id": 0} | getattr(self, f"_{self.family}")

    @property
    def _qwen3(self) -> dict[str, object]:
        heads = self.hidden // 64
        return QWEN3_0_6B | self._rotary(heads, heads // 2) | {"head_dim": 128 if self.hidden >= 1024 else 64}

    @property
    def _llama(self) -> dict[str, object]:
        heads = self.hidden // 64
        names: dict[str, object] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rms_norm_eps": 1e-5}
        return names | self._rotary(heads, heads // 4) | {"max_position_embeddings": 4096}

    @property
    def _gemma2(self) -> dict[str, object]:
        names: dict[str, object] = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
        caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 128}
        heads = self.hidden // 64
        return names | caps | self._rotary(heads, heads // 2) | {"head_dim": 64, "max_position_embeddings": 4096}

    @property
    def _gpt2(self) -> dict[str, object]:
        names: dict[str, object] = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
        return names | {
            "n_embd": self.hidden,
            "n_layer": self.layers,
            "n_head": self.hidden // 64,
            "n_positions": 2048,
            "tie_word_embeddings": True,
        }

    def _rotary(self, heads: int, kv_heads: int) -> dict[str, object]:
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": 3 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "tie_word_embeddings": True,
        }


GEOMETRIES = (
    Geometry("qwen3", "bf16", 512, 3, 8192),
    Geometry("qwen3", "bf16", 1024, 3, 16384),
    Geometry("qwen3", "fp32", 512, 4, 8192),
    Geometry("gemma2", "fp32", 256, 4, 4096),
    Geometry("gemma2", "bf16", 1024, 2, 12288),
    Geometry("gpt2", "bf16", 512, 4, 8192),
    Geometry("gpt2", "fp32", 768, 3, 12288),
    Geometry("llama", "bf16", 768, 4, 20000, held_out=True),
    Geometry("qwen3", "fp32", 768, 3, 12000, held_out=True),
    Geometry("gemma2", "bf16", 640, 3, 10000, held_out=True),
    Geometry("gpt2", "bf16", 768, 4, 12000, held_out=True),
)
"""Some fit a cache and some do not."""


def build(geometry: Geometry, directory: Path) -> Path:
    """The engine of random weights, compiled for this machine alone."""
    name = geometry.name.replace(" ", "-")
    model = make_model(directory / f"{name}.model", geometry.config, TOKENIZER_ENTRIES)
    engine = directory / f"{name}.engine"
    compile_model(model, engine, CompileOptions(dtype=geometry.dtype, isa=("native",), random_weights=0))
    return engine
