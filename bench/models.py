"""Model directories to measure on: a real geometry, and a tokenizer of its size. Weights are invented at compile."""

import itertools
import json
from pathlib import Path

QWEN3_0_6B = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "eos_token_id": 0,
}
"""The geometry of Qwen/Qwen3-0.6B, from its config.json."""

QWEN3_8B = QWEN3_0_6B | {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "intermediate_size": 12288,
    "tie_word_embeddings": False,
}
"""The geometry of Qwen/Qwen3-8B, from its config.json."""


def make_model(directory: Path, config: dict[str, object] = QWEN3_0_6B, vocabulary: int = 150_000) -> Path:
    """Write config.json and a synthetic byte-level BPE tokenizer of ``vocabulary`` entries."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(json.dumps(synthetic_tokenizer(vocabulary)))
    return directory


def synthetic_tokenizer(entries: int) -> dict[str, object]:
    """A tokenizer.json: bytes, then pairs of bytes, then triples, each from a merge of two entries before it."""
    letters = byte_letters()
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    merges = itertools.chain(
        ((a, b) for a in letters for b in letters),
        ((a + b, c) for a in letters for b in letters for c in letters),
    )
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    chosen = []
    for left, right in itertools.islice(merges, entries - len(letters)):
        vocabulary[left + right] = len(vocabulary)
        chosen.append([left, right])
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", **byte_level},
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": chosen},
    }


def byte_letters() -> list[str]:
    """The printable stand-ins for the 256 bytes that byte-level BPE uses (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + i) for i in itertools.count())
    return [chr(b) if b in printable else next(others) for b in range(256)]
