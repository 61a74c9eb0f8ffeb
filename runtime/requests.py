"""What is asked of an engine, and what comes back: the same for Python, the command line and the server."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .artifact.errors import OptionError
from .checks import INT32_MAX, is_number, is_whole

Prompt = str | Sequence[int]
Prompts = str | Sequence[Prompt]
"""One text, or several texts or lists of token ids."""
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """How a request is treated among others; nothing here changes a token of it."""

    request_id: str = ""
    """For logs and traces; empty: one is made up."""
    priority: int = 0
    """Higher goes first, and may take the place of running requests of lower ones."""
    key: str = ""
    """Requests of one key (a user, a tenant) share fairly with those of others."""
    deadline: float | None = None
    """Seconds from now; a request that is not done by then ends with DeadlineError."""
    cache_salt: str = ""
    """Cached prefixes are shared only among requests of equal salt."""

    def __post_init__(self) -> None:
        for name in ("request_id", "key", "cache_salt"):
            if not isinstance(getattr(self, name), str):
                raise OptionError(f"{name} must be text, got {getattr(self, name)!r}")
        if not is_whole(self.priority) or abs(self.priority) > INT32_MAX:
            raise OptionError(f"priority must be a whole number of 32 bits, got {self.priority!r}")
        if self.deadline is not None and not (is_number(self.deadline) and self.deadline > 0):
            raise OptionError(f"deadline must be a number of seconds above 0, got {self.deadline!r}")


class TokenLogprobs(NamedTuple):
    """Natural log-probabilities of one token."""

    model: float
    """Of the model's own distribution."""
    temperature: float
    """After temperature alone."""
    sampled: float
    """Of the distribution it was sampled from."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens and the model's log-probabilities of them."""


class PromptLogprob(NamedTuple):
    """Natural log-probability of a prompt's token given those before it."""

    model: float
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens in its place, and their log-probabilities."""


class Usage(NamedTuple):
    """What one sample took. Seconds are from its submission."""

    prompt_tokens: int
    cached_tokens: int
    """Of the prompt: found in the prefix cache, or shared with another sample."""
    output_tokens: int
    queued_seconds: float
    """Until it was first scheduled."""
    first_token_seconds: float | None
    """None where no token was asked for."""
    total_seconds: float
    preemptions: int


@dataclass(frozen=True)
class Chunk:
    """What one step added to one sample of a request."""

    sample_index: int
    token_id: int | None
    """None where ``max_tokens`` is 0: there is one chunk then, without a token."""
    text: str
    """Empty while a character, or what may become a stop string, is unfinished."""
    logprobs: TokenLogprobs | None
    version: int
    """Of the weights that gave the token."""
    finish_reason: FinishReason | None
    prompt_logprobs: tuple[PromptLogprob | None, ...] | None = None
    """By token of the prompt, the first None: on the first chunk of sample 0, where they were asked for."""
    usage: Usage | None = field(default=None, compare=False)
    """On the last chunk of each sample."""
    prompt_index: int = 0
    """Among prompts that were given together."""


@dataclass(frozen=True)
class Completion:
    """One sample of one prompt, whole."""

    prompt_index: int
    sample_index: int
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """As sampled, the end token included."""
    text: str
    """Without special tokens and stop strings."""
    logprobs: tuple[TokenLogprobs, ...] | None
    versions: tuple[int, ...]
    """Of the weights that gave each token."""
    finish_reason: FinishReason
    prompt_logprobs: tuple[PromptLogprob | None, ...] | None
    usage: Usage = field(compare=False)
