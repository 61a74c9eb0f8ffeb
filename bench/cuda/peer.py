"""transformers on the same device: the same geometry, a static cache, and its forward compiled by torch."""

import gc
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .figures import NEW, PREFILL, PROMPT


@dataclass(frozen=True)
class PeerSpeed:
    decode_tokens_per_second: dict[int, float]
    """By number of sequences."""
    prefill_seconds: float


class Peer:
    """A model of transformers on the device, in bf16, of random weights."""

    def __init__(self, torch: Any, model_dir: Path) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(model_dir)
        self._torch = torch
        with torch.device("cuda"):
            self._model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        self._vocabulary = int(config.vocab_size)

    def generate_seconds(self, sequences: int, prompt: int, new: int) -> float:
        """Of one call, with torch.compile behind transformers' static cache; greedy, never ending early."""
        torch = self._torch
        ids = torch.randint(3, self._vocabulary, (sequences, prompt), device="cuda")
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        options = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new}
        with torch.inference_mode():
            began.record()
            self._model.generate(
                ids, attention_mask=torch.ones_like(ids), cache_implementation="static", pad_token_id=0, **options
            )
            ended.record()
        torch.cuda.synchronize()
        return float(began.elapsed_time(ended)) / 1e3

    def measure(self, rounds: int, batches: tuple[int, ...] = (1, 64)) -> PeerSpeed:
        """Medians. The time of one token is the difference of a long run and a short one."""
        rates = {}
        for count in batches:
            for new in (NEW, 2):  # which compiles
                self.generate_seconds(count, PROMPT, new)
            long = [self.generate_seconds(count, PROMPT, NEW) for _ in range(rounds)]
            short = [self.generate_seconds(count, PROMPT, 2) for _ in range(rounds)]
            rates[count] = count * (NEW - 2) / max(median(long) - median(short), 1e-9)
        self.generate_seconds(1, PREFILL, 1)
        return PeerSpeed(rates, median(self.generate_seconds(1, PREFILL, 1) for _ in range(rounds)))

    def close(self) -> None:
        """Give its memory back."""
        del self._model
        gc.collect()
        self._torch.cuda.empty_cache()
