"""The families whose every feature is tested against transformers; others trace where their ops are known."""

from .family import Family

ROTARY = {
    "recognize-rope": "2 * layers",
    "fuse-linears": "layers",
    "fuse-qkv-write": "layers",
    "fuse-gated-linear": "layers unless mlp_bias",
}
FAMILIES = (
    Family("llama", ROTARY | {"recognize-rms-norm": "2 * layers + 1", "fuse-add-rms-norm": "2 * layers"}),
    Family("qwen3", ROTARY | {"recognize-rms-norm": "4 * layers + 1", "fuse-add-rms-norm": "2 * layers"}),
    Family("gemma2", ROTARY | {"recognize-rms-norm": "4 * layers + 1", "fuse-add-rms-norm": "2 * layers"}),
    Family(
        "gpt2",
        {
            "fuse-activation": "layers",
            "fuse-qkv-write": "layers",
            "fuse-add-layer-norm": "2 * layers",
        },
    ),
)
