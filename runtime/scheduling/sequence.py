"""Requests and their sequences, as scheduling sees them."""

from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from ..requests import Chunk, PromptLogprob, RequestOptions
from ..sampling import SamplingParams
from ..states.memory import SequenceStates
from ..text import IncrementalText, StopStrings

Item = Chunk | np.ndarray | BaseException
"""What a request gets: chunks; or, where it wanted logits, them f32 [rows, V]; an error ends its sequence."""


class Pending(NamedTuple):
    """A token that is not known yet: sampled from a step's row of logits, at a position of its sequence."""

    row: int
    position: int


@dataclass(eq=False)
class Request:
    """One prompt, ``params.n`` times to be continued."""

    prompt: List[int]
    params: SamplingParams
    options: RequestOptions
    seed: int
    max_tokens: int
    """As the context allows."""
    stop_ids: frozenset[int]
    arrived: float
    """Seconds of ``time.perf_counter``; so is the deadline."""
    deadline: float | None
    deliver: Callable[[int, Item], None]
    """Called with the sample's index, from the engine's threads; it must be quick."""
    prompt_index: int = 0
    """Among prompts that were submitted together."""
    wants_logits: bool = False
    """Of every token of the prompt; then nothing is sampled."""
    cancelled: bool = False
    sequences: "list[Sequence]" = field(default_factory=list)
    """One per sample; only the first computes the prompt, the others share it."""
    prompt_states: SequenceStates | None = None
    """Kept for samples that have not started yet."""
    ended_samples: int = 0

    @property
    def ended(self) -> bool:
        """Whether all its samples have."""
        return self.ended_samples == len(self.sequences)

    @property
    def scores_prompt(self) -> bool:
        return self.params.prompt_logprobs is not None


@dataclass(eq=False)
class Sequence:
    """One sample of a request."""

    request: Request
    sample_index: int
    number: int
    """Rises with arrival."""
    text: IncrementalText
    stops: StopStrings
    tokens: list[int]
    """Prompt, and output as far as it is known."""
    status: Literal["waiting", "running", "ended"] = "waiting"
    states: SequenceStates | None = None
    pending: Pending | None = None
    """Its next token, where a step in flight samples it."""
    wanted_from: int = 0
    """Positions of the prompt before this one need no row of logits (any more)."""
    prompt_logprobs: list[PromptLogprob | None] = field(default_factory=list)
    reused: int | None = None
    """Tokens of the prompt that were there when it first started."""
    scheduled_at: float | None = None
    first_token_at: float | None = None
    preemptions: int = 0
    rank: tuple[int, int] = field(init=False)
    """The lower, the sooner it is served."""

    def __post_init__(self) -> None:
        self.rank = (-self.request.options.priority, self.number)

    @property
    def length(self) -> int:
        """Tokens, the one that the step in flight samples included."""
        return len(self.tokens) + (self.pending is not None)

    @property
    def computed(self) -> int:
        """Tokens whose states are there, or will be after the step in flight."""
        return self.states.length if self.states is not None else 0

    @property
    def goal(self) -> int:
        """How many tokens it wants computed by now."""
        prompt = len(self.request.prompt)
        if self.request.wants_logits:
            return prompt
        if self.request.max_tokens == 0:
            # Scores of a prompt need no logits after its last token; but other samples wait until it is computed whole.
            return max(prompt - 1, 1) if self.request.scores_prompt and self.request.params.n == 1 else prompt
        return min(self.length, prompt + self.request.max_tokens - 1)

    @property
    def missing(self) -> int:
        """Tokens to be computed."""
        return self.goal - self.computed

    @property
    def samples(self) -> bool:
        """Whether computing its last token gives another."""
        return self.request.max_tokens > 0 and not self.request.wants_logits

    @property
    def wanted_until(self) -> int:
        """From ``wanted_from`` up to here, rows of logits are wanted for positions of the prompt themselves."""
        if self.request.wants_logits:
            return len(self.request.prompt)
        if self.request.scores_prompt and self.sample_index == 0:
            return len(self.request.prompt) - 1
        return 0
