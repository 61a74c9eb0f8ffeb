"""Numbers of an engine on the device against transformers in float32, on the bundled model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.driver import compile_model
from ...compiler.options import CompileOptions
from ...runtime.engine import Engine
from ...runtime.sampling import SamplingParams

_LENGTH = 256
_BATCH = 16


@dataclass(frozen=True)
class Parity:
    dtype: str
    tokens: int
    largest_error: float
    """Of the logits, against transformers' in float32."""
    peer_error: float
    """The same of transformers in this dtype, on the device."""
    largest_logit: float
    alone_equals_batched: bool
    """Whether tokens and log-probabilities of requests are bitwise the same alone and together."""


def measure_parity(torch: Any, model_dir: Path, work: Path, target: str) -> tuple[Parity, ...]:
    """In float32 and bf16, and in batch-invariant bf16."""
    ids = np.random.default_rng(0).integers(3, 4000, _LENGTH).tolist()
    reference = logits_of(torch, model_dir, ids, "float32", "cpu")
    found = []
    for dtype, peer, invariant in (("fp32", "float32", False), ("bf16", "bfloat16", False), ("bf16", "bfloat16", True)):
        engine = work / f"parity-{dtype}{'-invariant' if invariant else ''}.engine"
        compile_model(model_dir, engine, CompileOptions(target=target, dtype=dtype, batch_invariant=invariant))
        with Engine.load(engine) as loaded:
            ours = loaded.logits(ids)
            alike = alone_equals_batched(loaded)
        theirs = logits_of(torch, model_dir, ids, peer, "cuda")
        error, peer_error = (float(np.abs(each - reference).max()) for each in (ours, theirs))
        name = f"{dtype}, batch-invariant" if invariant else dtype
        found.append(Parity(name, _LENGTH, error, peer_error, float(np.abs(reference).max()), alike))
    return tuple(found)


def logits_of(torch: Any, model_dir: Path, ids: list[int], dtype: str, device: str) -> np.ndarray:
    """float32 [T, vocabulary]"""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype)).to(device).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=device)).logits[0]
    values: np.ndarray = logits.float().cpu().numpy()
    return values


def alone_equals_batched(engine: Engine) -> bool:
    params = SamplingParams(temperature=0.8, seed=7, max_tokens=24, logprobs=2, ignore_eos=True)
    draw = np.random.default_rng(2)
    prompts = [draw.integers(3, 4000, int(length)).tolist() for length in draw.integers(5, 200, _BATCH)]
    together = engine.generate(prompts, params)
    engine.reset_prefix_cache()
    alone = [engine.generate([prompt], params)[0] for prompt in prompts]
    return all(a.token_ids == b.token_ids and a.logprobs == b.logprobs for a, b in zip(together, alone, strict=True))
