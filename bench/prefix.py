"""What a shared prefix saves: the time to the first token of a prompt that starts like one before it."""

from dataclasses import dataclass
from statistics import median

import numpy as np

from ..runtime.engine import Engine
from ..runtime.sampling import SamplingParams


@dataclass(frozen=True)
class Prefix:
    """Medians over the rounds, in milliseconds from submission to first token."""

    prefix_tokens: int
    suffix_tokens: int
    rounds: int
    cold_ms: float
    """Of the first prompt."""
    warm_ms: float
    """Of another that shares the prefix."""
    cached_tokens: int
    """Of that one's prompt."""
    identical: bool
    """Whether all tokens and log-probabilities are those of the same prompt with an empty cache."""


def measure_prefix(engine: Engine, prefix_tokens: int, suffix_tokens: int, rounds: int) -> Prefix:
    """Every round has a random prefix of its own, and three requests: first, second, and the second with no cache."""
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=5)
    rng = np.random.default_rng(0)
    cold, warm, identical, cached = [], [], True, 0
    for _ in range(rounds):
        drawn = rng.integers(3, engine.manifest.model.vocab_size, prefix_tokens + 2 * suffix_tokens).tolist()
        first = drawn[: prefix_tokens + suffix_tokens]
        second = drawn[:prefix_tokens] + drawn[prefix_tokens + suffix_tokens :]
        (one,) = engine.generate([first], params)
        (two,) = engine.generate([second], params)
        engine.reset_prefix_cache()
        (alone,) = engine.generate([second], params)
        cold.append(one.usage.first_token_seconds or 0.0)
        warm.append(two.usage.first_token_seconds or 0.0)
        cached = two.usage.cached_tokens
        identical &= two == alone and alone.usage.cached_tokens == 0
    return Prefix(prefix_tokens, suffix_tokens, rounds, median(cold) * 1e3, median(warm) * 1e3, cached, identical)
