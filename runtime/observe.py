"""What an engine tells those who watch it: a record of every step and of every request's end, and its state now.

All times are seconds of ``time.perf_counter``.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from .requests import Usage


class KernelTimes(NamedTuple):
    """One run of one of the plan's functions, launch by launch."""

    function: str
    began: float
    origins: tuple[str, ...]
    """The graph node of each launch."""
    kernels: tuple[str, ...]
    seconds: np.ndarray
    """f64 [launches]"""


@dataclass(frozen=True)
class StepRecord:
    """One step: what was in it, and when what happened to it."""

    index: int
    tokens: int
    sequences: int
    rows: int
    """Whose logits were computed."""
    decoding: int
    """Sequences that took one token to get the next."""
    budget: int
    """Tokens that the scheduler allowed."""
    running: int
    waiting: int
    request_ids: tuple[str, ...]
    """Of the sequences, in their order."""
    sequence_tokens: tuple[int, ...]
    """How many of each."""
    schedule_began: float
    schedule_ended: float
    """Choosing and preparing it, most often while the step before it ran."""
    began: float
    ended: float
    """On the kernels' threads."""
    process_began: float
    process_ended: float
    """Making text of its tokens and handing them out, most often while the step after it ran."""
    kernels: tuple[KernelTimes, ...] = ()
    """Only where kernel times were asked for."""
    launched: float = 0.0
    """When all of it had been given to the machine: a device waits from the end of the step before until then."""


@dataclass(frozen=True)
class RequestRecord:
    """One sample of a request, after its end."""

    request_id: str
    sample_index: int
    key: str
    priority: int
    arrived: float
    scheduled: float | None
    first_token: float | None
    ended: float
    outcome: Literal["stop", "length", "cancelled", "error"]
    error: str
    """The message, where the outcome is ``error``."""
    usage: Usage


class GroupPages(NamedTuple):
    """Pages of one state group."""

    total: int
    in_use: int
    """By sequences."""
    cached: int
    """By nobody, but kept for whoever starts alike."""


@dataclass(frozen=True)
class EngineStats:
    """An engine's state at one moment; counts are since it was loaded."""

    version: int
    """Of the weights."""
    running: int
    """Sequences that hold states."""
    waiting: int
    waiting_tokens: int
    groups: tuple[GroupPages, ...]
    swapped_pages: int
    steps: int
    prompt_tokens: int
    """Of prompts that were scheduled, those found in the cache included."""
    cached_tokens: int
    """Of these, found in the cache."""
    computed_tokens: int
    output_tokens: int
    preemptions: int
    requests: int
    """Samples that ended, in whatever way."""


class Observer(Protocol):
    """Called from the engine's own threads, between two steps: it must be quick, and must not raise."""

    kernel_times: bool
    """Whether steps should time every kernel, which costs a few percent."""

    def step(self, record: StepRecord) -> None: ...

    def request(self, record: RequestRecord) -> None: ...
