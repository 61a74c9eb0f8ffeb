"""How tokens are chosen: a user's parameters, and the rows that the sampling plan reads."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .artifact.errors import OptionError
from .checks import INT32_MAX, is_number, is_whole
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
GREEDY_BELOW = 1e-5
"""Temperatures below choose the likeliest token, as 0 does: logits divided by them would overflow."""
TEMPERATURE_LIMIT = 1e4
PENALTY_LIMIT = 1e9
"""Of logit biases and of the penalties that are subtracted, either way: sums with logits stay finite."""
REPETITION_LIMITS = (1e-3, 1e3)
_SAMPLES_LIMIT = 10_000


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to continue a prompt. Values out of range raise OptionError."""

    temperature: float = 1.0
    """0, and all below 1e-5: the likeliest token. At most 10000."""
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
    """Added to the logits of these token ids; -inf: never this token."""
    seed: int | None = None
    """None: another one for every request."""
    max_tokens: int = 256
    """0: the prompt is computed, and nothing sampled."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are cut off."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    """Go on past the model's own end tokens."""
    logprobs: int | None = None
    """None: no log-probabilities; otherwise those of the tokens and of this many likeliest ones, up to 20."""
    prompt_logprobs: int | None = None
    """None: no log-probabilities of the prompt; otherwise those of its tokens, and of this many likeliest in each one's
    place, up to 20. The prompt is computed whole then, whatever the prefix cache holds."""
    n: int = 1
    """Samples of each prompt."""

    def __post_init__(self) -> None:
        _real("temperature", self.temperature, 0, TEMPERATURE_LIMIT)
        _whole("top_k", self.top_k, 0, INT32_MAX)
        _check("top_p", self.top_p, is_number(self.top_p) and 0 < self.top_p <= 1, "above 0 and at most 1")
        _real("min_p", self.min_p, 0, 1)
        _real("repetition_penalty", self.repetition_penalty, *REPETITION_LIMITS)
        _real("presence_penalty", self.presence_penalty, -PENALTY_LIMIT, PENALTY_LIMIT)
        _real("frequency_penalty", self.frequency_penalty, -PENALTY_LIMIT, PENALTY_LIMIT)
        _check("logit_bias", self.logit_bias, isinstance(self.logit_bias, Mapping), "a mapping of token ids to numbers")
        for token, bias in self.logit_bias.items():
            _whole("logit_bias of a token: its id", token, 0, INT32_MAX)
            if bias != -math.inf:
                _real(f"logit_bias of token {token}", bias, -PENALTY_LIMIT, PENALTY_LIMIT)
        # What is checked here must not change later, while a request of it runs.
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))
        if self.seed is not None:
            _whole("seed", self.seed, 0, (1 << 64) - 1)
        _whole("max_tokens", self.max_tokens, 0, INT32_MAX)
        strings = _is_list(self.stop) and all(isinstance(stop, str) and stop for stop in self.stop)
        _check("stop", self.stop, strings, "a tuple of strings that are not empty")
        object.__setattr__(self, "stop", tuple(self.stop))
        _check("stop_token_ids", self.stop_token_ids, _is_list(self.stop_token_ids), "a tuple of token ids")
        for token in self.stop_token_ids:
            _whole("stop_token_ids", token, 0, INT32_MAX)
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        _check("ignore_eos", self.ignore_eos, isinstance(self.ignore_eos, bool), "true or false")
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 0, TOP_LOGPROBS)
        _whole("n", self.n, 1, _SAMPLES_LIMIT)

    @property
    def penalises(self) -> bool:
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


def _check(name: str, value: object, valid: bool, rule: str) -> None:
    if not valid:
        raise OptionError(f"{name} must be {rule}, got {value!r}")


def _whole(name: str, value: object, least: int, most: int) -> None:
    _check(name, value, is_whole(value) and least <= value <= most, f"a whole number from {least} to {most}")


def _real(name: str, value: object, least: float, most: float) -> None:
    _check(name, value, is_number(value) and least <= value <= most, f"a number from {least:g} to {most:g}")


def _is_list(value: object) -> bool:
    return isinstance(value, tuple | list)


class RowRequest(NamedTuple):
    """A token to be sampled."""

    params: SamplingParams
    seed: int
    sample_index: int
    tokens: Sequence[int]
    """Prompt and output so far."""
    prompt_tokens: int
    pending: int = 0
    """Further tokens, not known yet; the history has zeros in their place."""


def sampling_input(requests: Sequence[RowRequest], vocab_size: int) -> SamplingInput:
    """The sampling plan's input for these rows. The position of a row is that of the token it samples."""
    rows: list[tuple[float, ...]] = []
    history: list[int] = []
    bias_ids: list[int] = []
    bias_values: list[float] = []
    for params, seed, sample_index, tokens, prompt_tokens, pending in requests:
        history_start, bias_start = len(history), len(bias_ids)
        history_prompt = history_start
        if params.penalises:
            history.extend(tokens)
            history.extend([0] * pending)
            history_prompt += prompt_tokens
        bias_ids.extend(params.logit_bias)
        bias_values.extend(params.logit_bias.values())
        row = (
            seed,
            sample_index,
            len(tokens) + pending,
            params.temperature if params.temperature >= GREEDY_BELOW else 0,
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
        rows.append(row)
    return SamplingInput(
        np.array(rows, SAMPLING_ROW),
        np.array(history, np.int32),
        np.array(bias_ids, np.int32),
        np.array(bias_values, np.float32),
        np.zeros((0, -(-vocab_size // 32)), np.uint32),
    )
