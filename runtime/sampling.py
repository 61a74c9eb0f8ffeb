"""How tokens are chosen: a user's parameters, and the rows that the sampling plan reads."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .artifact.errors import OptionError
from .step import SamplingInput

TOP_LOGPROBS = 20
"""Of the likeliest tokens, how many the sampling plan returns."""
SAMPLING_ROW = np.dtype(
    [
        ("seed", np.uint64),
        ("sample_index", np.int64),
        ("position", np.int64),
        ("temperature", np.float32),
        ("top_p", np.float32),
        ("min_p", np.float32),
        ("repetition_penalty", np.float32),
        ("presence_penalty", np.float32),
        ("frequency_penalty", np.float32),
        ("top_k", np.int32),
        ("history_start", np.int32),
        ("history_prompt", np.int32),
        ("history_stop", np.int32),
        ("bias_start", np.int32),
        ("bias_stop", np.int32),
        ("mask_row", np.int32),
        ("top_logprobs", np.int32),
    ],
    align=True,
)
"""struct xllmc_sampling_row of ``xllmc/sampler.h``."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to continue a prompt. Values out of range raise OptionError."""

    temperature: float = 1.0
    """0: the likeliest token."""
    top_k: int = 0
    """Only the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability."""
    min_p: float = 0.0
    """Only tokens at least this times as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens in prompt or output."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens in the output."""
    frequency_penalty: float = 0.0
    """Subtracted once for each time a token is in the output."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these token ids."""
    seed: int | None = None
    """None: another one for every request."""
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are cut off."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    """Go on past the model's own end tokens."""
    logprobs: int | None = None
    """None: no log-probabilities; otherwise those of the tokens and of this many likeliest ones, up to 20."""
    n: int = 1
    """Samples of each prompt."""

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0 <= self.temperature < math.inf, "at least 0")
        _check("top_k", self.top_k, self.top_k >= 0, "at least 0 (0: all tokens)")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1")
        _check("repetition_penalty", self.repetition_penalty, 0 < self.repetition_penalty < math.inf, "above 0")
        _check("presence_penalty", self.presence_penalty, math.isfinite(self.presence_penalty), "a finite number")
        _check("frequency_penalty", self.frequency_penalty, math.isfinite(self.frequency_penalty), "a finite number")
        for token, bias in self.logit_bias.items():
            _check(f"logit_bias of token {token}", bias, token >= 0 and not math.isnan(bias), "a number")
        _check("seed", self.seed, self.seed is None or 0 <= self.seed < 1 << 64, "from 0 to 2^64 - 1")
        _check("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1")
        _check(
            "stop",
            self.stop,
            not isinstance(self.stop, str) and all(self.stop),
            "a tuple of strings that are not empty",
        )
        logprobs = self.logprobs
        _check("logprobs", logprobs, logprobs is None or 0 <= logprobs <= TOP_LOGPROBS, f"from 0 to {TOP_LOGPROBS}")
        _check("n", self.n, self.n >= 1, "at least 1")

    @property
    def penalises(self) -> bool:
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


def _check(name: str, value: object, valid: bool, rule: str) -> None:
    if not valid:
        raise OptionError(f"{name} must be {rule}, got {value!r}")


class RowRequest(NamedTuple):
    """A token to be sampled."""

    params: SamplingParams
    seed: int
    sample_index: int
    tokens: Sequence[int]
    """Prompt and output so far."""
    prompt_tokens: int


def sampling_input(requests: Sequence[RowRequest], vocab_size: int) -> SamplingInput:
    """The sampling plan's input for these rows. The position of a row is that of the token it samples."""
    rows = np.zeros(len(requests), SAMPLING_ROW)
    history: list[int] = []
    bias_ids: list[int] = []
    bias_values: list[float] = []
    for i, (params, seed, sample_index, tokens, prompt_tokens) in enumerate(requests):
        history_start, bias_start = len(history), len(bias_ids)
        history_prompt = history_start
        if params.penalises:
            history.extend(tokens)
            history_prompt += prompt_tokens
        bias_ids.extend(params.logit_bias)
        bias_values.extend(params.logit_bias.values())
        rows[i] = (
            seed,
            sample_index,
            len(tokens),
            params.temperature,
            params.top_p,
            params.min_p,
            params.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
            params.top_k,
            history_start,
            history_prompt,
            len(history),
            bias_start,
            len(bias_ids),
            -1,
            params.logprobs or 0,
        )
    return SamplingInput(
        rows,
        np.array(history, np.int32),
        np.array(bias_ids, np.int32),
        np.array(bias_values, np.float32),
        np.zeros((0, -(-vocab_size // 32)), np.uint32),
    )
