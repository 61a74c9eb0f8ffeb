"""Train the bundled demo models: a small Qwen3-shaped language model of Python source, and a smaller sibling.

    python -m xllmc.models.demo.train demo  --out models/demo/checkpoints/demo
    python -m xllmc.models.demo.train draft --out models/demo/checkpoints/draft

The two share one tokenizer (the sibling drafts for the larger in speculative decoding). Training is resumable: state is
saved to ``--work`` every ``SAVE_EVERY`` steps, and the same command goes on from there.
"""

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from . import corpus

VOCAB = 4096
SEQUENCE = 512
BATCH = 8
SAVE_EVERY = 200
END, TURN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Size:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    steps: int
    learning_rate: float

    def config(self) -> Qwen3Config:
        return Qwen3Config(
            vocab_size=VOCAB,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=64,
            intermediate_size=self.intermediate,
            max_position_embeddings=2048,
            rope_theta=10000.0,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )


SIZES = {
    "demo": Size(hidden=256, layers=6, heads=4, kv_heads=2, intermediate=704, steps=2200, learning_rate=2e-3),
    "draft": Size(hidden=128, layers=2, heads=2, kv_heads=1, intermediate=352, steps=1500, learning_rate=4e-3),
}


def train_tokenizer(path: Path) -> Tokenizer:
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END, TURN, TURN_END],
        show_progress=False,
    )
    texts = (corpus.read(p) for p in corpus.stdlib_files() if not corpus.is_held_out(p))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
    return tokenizer


def encode_split(tokenizer: Tokenizer, held_out: bool) -> np.ndarray:
    """All documents of one split as a single stream of token ids, uint16, in a fixed shuffled order."""
    documents: list[str] = []
    for number, path in enumerate(p for p in corpus.stdlib_files() if corpus.is_held_out(p) == held_out):
        source = corpus.read(path)
        documents.append(source + END)
        if number % corpus.CHAT_EVERY == 0:
            documents.extend(
                f"{TURN}user\n{question}{TURN_END}\n{TURN}assistant\n{answer}{TURN_END}\n{END}"
                for question, answer in corpus.documented_functions(source)
            )
    random.Random(0).shuffle(documents)
    return np.concatenate([np.array(e.ids, np.uint16) for e in tokenizer.encode_batch(documents)])


def batch_at(stream: np.ndarray, step: int) -> torch.Tensor:
    rng = np.random.default_rng([17, step])
    starts = rng.integers(0, len(stream) - SEQUENCE - 1, BATCH)
    return torch.from_numpy(np.stack([stream[s : s + SEQUENCE + 1] for s in starts]).astype(np.int64))


def loss_of(model: Qwen3ForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, stream: np.ndarray, batches: int = 16) -> float:
    """Mean cross-entropy in nats per token over fixed windows of the held-out text."""
    model.eval()
    loss = sum(loss_of(model, batch_at(stream, step)).item() for step in range(batches)) / batches
    model.train()
    return loss


def learning_rate(size: Size, step: int) -> float:
    warm = min(1.0, (step + 1) / 100)
    return size.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / size.steps)))


def train(name: str, out: Path, work: Path) -> None:
    size = SIZES[name]
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(work / "tokenizer.json")
    stream, held_out = encode_split(tokenizer, held_out=False), encode_split(tokenizer, held_out=True)
    print(f"{len(stream):,} training tokens, {len(held_out):,} held out", flush=True)

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(size.config()).train()
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    state, first, seconds = work / f"{name}.pt", 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first, seconds = saved["step"], saved["seconds"]
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{name}: {parameters:,} parameters, from step {first} of {size.steps}", flush=True)

    for step in range(first, size.steps):
        began = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(size, step)
        loss = loss_of(model, batch_at(stream, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds += time.process_time() - began
        if (step + 1) % 20 == 0:
            print(f"step {step + 1} loss {loss.item():.3f} core-minutes {seconds / 60:.1f}", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == size.steps:
            saved = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "seconds": seconds,
            }
            torch.save(saved, state.with_suffix(".tmp"))
            state.with_suffix(".tmp").rename(state)
    export(model, tokenizer, out, name, size, seconds, held_out_loss(model, held_out), len(stream))


def export(
    model: Qwen3ForCausalLM,
    tokenizer: Tokenizer,
    out: Path,
    name: str,
    size: Size,
    seconds: float,
    loss: float,
    corpus_tokens: int,
) -> None:
    model.to(torch.bfloat16).save_pretrained(out)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(out)
    model.generation_config.eos_token_id = [tokenizer.token_to_id(END), tokenizer.token_to_id(TURN_END)]
    model.generation_config.save_pretrained(out)
    tokens = size.steps * BATCH * SEQUENCE
    (out / "README.md").write_text(
        f"# xllmc {name} model\n\n"
        f"A Qwen3-shaped language model of Python source text: {sum(p.numel() for p in model.parameters()):,} "
        f"parameters ({size.layers} layers, hidden {size.hidden}), bf16, its own byte-level BPE of {VOCAB} tokens.\n\n"
        f"- **Text**: the Python standard library's own sources (PSF licence), without its tests; one file in "
        f"{corpus.CHAT_EVERY} also gives its documented functions as question-and-answer pairs. "
        f"{corpus_tokens:,} tokens; {corpus.HELD_OUT_PERCENT}% of the files held out.\n"
        f"- **Training**: {size.steps} steps of {BATCH} x {SEQUENCE} tokens ({tokens / 1e6:.1f} M tokens), "
        f"{seconds / 60:.0f} core-minutes on a CPU (`python -m xllmc.models.demo.train {name}`).\n"
        f"- **Held-out loss**: {loss:.3f} nats per token.\n\n"
        "It is for demonstrations and tests: it writes text that looks like Python, not programs that work.\n"
    )
    print(f"{name}: held-out loss {loss:.3f}, saved to {out}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SIZES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/demo-training"))
    arguments = parser.parse_args()
    train(arguments.name, arguments.out, arguments.work)


if __name__ == "__main__":
    main()
