"""First come, first served: continuous batching of requests over one engine, in a thread of its own.

Each step feeds one token of every sequence that is decoding, and fills up with the prompts of those that are not. A
sequence is admitted when all the pages it may ever need are free, so nothing that runs is ever preempted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from .artifact.errors import NumericError, OptionError, XllmcError
from .door import check_sampling
from .library import closed
from .pages import SequencePages
from .sampling import RowRequest, SamplingParams, sampling_input
from .step import SamplingInput, StepInput, StepOutput
from .text import IncrementalText, StopStrings

if TYPE_CHECKING:
    from .engine import Engine

FinishReason = Literal["stop", "length"]
_BUSY_SECONDS = 0.002
"""Between two looks at key-value memory that something other than a request holds."""
_NONE_ALLOWED = -2
"""token_none_allowed of ``xllmc/sampler.h``."""


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


@dataclass(frozen=True)
class Chunk:
    """What one step added to one sample of a request."""

    sample_index: int
    token_id: int
    text: str
    """Empty while a character, or what may become a stop string, is unfinished."""
    logprobs: TokenLogprobs | None
    version: int
    """Of the weights that gave the token."""
    finish_reason: FinishReason | None


@dataclass(eq=False)
class Request:
    """One sample of one prompt."""

    prompt: Sequence[int]
    params: SamplingParams
    seed: int
    sample_index: int
    max_tokens: int
    """As the context allows."""
    stop_ids: frozenset[int]
    text: IncrementalText
    deliver: Callable[[Chunk | BaseException], None]
    """Called from the batcher's thread; an exception ends the request."""
    cancelled: bool = False
    stops: StopStrings = field(init=False)
    tokens: list[int] = field(init=False)
    """Prompt and output."""
    computed: int = 0
    """How many of the tokens have keys and values."""
    pages: SequencePages | None = None

    def __post_init__(self) -> None:
        self.stops = StopStrings(self.params.stop)
        self.tokens = list(self.prompt)

    @property
    def longest(self) -> int:
        """Tokens that need keys and values; the last one sampled never does."""
        return len(self.prompt) + self.max_tokens - 1


class Batcher:
    """Runs requests until none are left; its thread lives only as long as there is work."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        capacities = engine.capacities
        self._most_running = min(capacities.sequences, capacities.rows, capacities.tokens)

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue the requests. Raises OptionError, and queues none, if one can never fit."""
        for request in requests:
            self._engine.kv.needs(request.longest)
            # The step's door would refuse it too, but then for all that share the step.
            check_sampling(self._sampling([request]), 1, self._engine.manifest.model.vocab_size)
        with self._lock:
            if self._closed:
                raise closed()
            self._waiting.extend(requests)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="xllmc-batcher", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Fail all requests, and wait for the step that runs."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        try:
            while self._has_work():
                self._step()
        except XllmcError as problem:
            self._fail(problem)
        except BaseException as problem:
            self._fail(problem)
            raise
        if self._closed:
            self._fail(closed())

    def _fail(self, problem: BaseException) -> None:
        with self._lock:
            self._thread = None
            failed = [*self._running, *self._waiting]
            self._running, self._waiting = [], deque()
        for request in failed:
            self._release(request)
            request.deliver(problem)

    def _has_work(self) -> bool:
        with self._lock:
            for request in [r for r in self._running if r.cancelled]:
                self._running.remove(request)
                self._release(request)
            if self._closed:
                return False
            self._admit()
            if not self._running and not self._waiting:
                self._thread = None
            return self._thread is not None

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._most_running:
            request = self._waiting[0]
            if not request.cancelled:
                with self._engine.lock:
                    request.pages = self._engine.kv.reserve(request.longest)
                if request.pages is None:
                    return
                self._running.append(request)
            self._waiting.popleft()

    def _step(self) -> None:
        batch = self._schedule()
        if not batch:
            time.sleep(_BUSY_SECONDS)
            return
        sampled = [request for request, stop in batch if stop == len(request.tokens)]
        with self._engine.lock:
            output = self._engine.step(self._step_input(batch, sampled))
        for request, stop in batch:
            request.computed = stop
        for row, request in enumerate(sampled):
            self._deliver(request, row, output)

    def _schedule(self) -> list[tuple[Request, int]]:
        """Requests of the next step, and how many of their tokens are computed after it."""
        decoding = [(r, len(r.tokens)) for r in self._running if r.computed == len(r.tokens) - 1]
        left = self._engine.capacities.tokens - len(decoding)
        batch = decoding
        for request in self._running:
            missing = len(request.tokens) - request.computed
            if missing > 1 and left:
                count = min(missing, left)
                batch.append((request, request.computed + count))
                left -= count
        return batch

    def _step_input(self, batch: Sequence[tuple[Request, int]], sampled: Sequence[Request]) -> StepInput:
        kv = self._engine.kv
        pages = []
        for request, stop in batch:
            assert request.pages is not None
            kv.extend(request.pages, request.computed, stop)
            pages.append(request.pages)
        starts = np.cumsum([0, *(stop - request.computed for request, stop in batch)], dtype=np.int32)
        ends = starts[1:] - 1
        return StepInput(
            token_ids=np.concatenate([np.array(r.tokens[r.computed : stop], np.int32) for r, stop in batch]),
            positions=np.concatenate([np.arange(r.computed, stop, dtype=np.int32) for r, stop in batch])[None],
            query_starts=starts,
            block_tables=kv.tables(pages),
            logit_rows=ends[[stop == len(request.tokens) for request, stop in batch]],
            sampling=self._sampling(sampled) if sampled else None,
        )

    def _sampling(self, requests: Sequence[Request]) -> SamplingInput:
        rows = [RowRequest(r.params, r.seed, r.sample_index, r.tokens, len(r.prompt)) for r in requests]
        return sampling_input(rows, self._engine.manifest.model.vocab_size)

    def _deliver(self, request: Request, row: int, output: StepOutput) -> None:
        assert output.tokens is not None
        token = int(output.tokens[row])
        if token < 0:
            self._end(request)
            request.deliver(_unsampled(token))
            return
        request.tokens.append(token)
        text, reason = _advance(request, token)
        if reason is not None:
            self._end(request)
        logprobs = None if request.params.logprobs is None else _logprobs(output, row, request.params.logprobs)
        request.deliver(Chunk(request.sample_index, token, text, logprobs, output.version, reason))

    def _end(self, request: Request) -> None:
        with self._lock:
            self._running.remove(request)
        self._release(request)

    def _release(self, request: Request) -> None:
        if request.pages is not None:
            with self._engine.lock:
                self._engine.kv.release(request.pages)
            request.pages = None


def _advance(request: Request, token: int) -> tuple[str, FinishReason | None]:
    """The text a token adds, and whether it ends the request."""
    text, stops = request.text, request.stops
    if token in request.stop_ids:
        return stops.add(text.finish()) + stops.finish(), "stop"
    shown = stops.add(text.add(token))
    if not stops.stopped and len(request.tokens) - len(request.prompt) < request.max_tokens:
        return shown, None
    shown += stops.add(text.finish())
    return shown + stops.finish(), "stop" if stops.stopped else "length"


def _unsampled(token: int) -> XllmcError:
    """What the sampling plan's negative tokens mean (``xllmc/sampler.h``)."""
    if token == _NONE_ALLOWED:
        return OptionError("sampling needs a token that is allowed, and logit_bias leaves none; allow one")
    return not_finite()


def not_finite() -> NumericError:
    """What a NaN among the logits ends in."""
    return NumericError(
        "the model's logits must be finite, got NaN or infinity; check its weights, or compile with fp32"
    )


def _logprobs(output: StepOutput, row: int, top: int) -> TokenLogprobs:
    assert output.logprobs is not None and output.top_ids is not None and output.top_logprobs is not None
    pairs = zip(output.top_ids[row, :top].tolist(), output.top_logprobs[row, :top].tolist(), strict=True)
    # A vocabulary smaller than `top` leaves ids of -1.
    likeliest = tuple(pair for pair in pairs if pair[0] >= 0)
    model, temperature, sampled = output.logprobs[row].tolist()
    return TokenLogprobs(model, temperature, sampled, likeliest)
