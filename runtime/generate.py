"""From prompts to completions: requests for the engine's loop, and their chunks put together again."""

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from collections.abc import Sequence as List
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np

from .artifact.errors import OptionError
from .artifact.schema import ModelFacts
from .checks import is_number, token_list
from .door import check_sampling
from .loop.loop import Loop
from .requests import Chunk, Completion, Prompt, Prompts, RequestOptions
from .sampling import RowRequest, SamplingParams, sampling_input
from .scheduling.sequence import Item, Request, Sequence
from .states.memory import StateMemory
from .text import IncrementalText, StopStrings
from .tokenizer import Tokenizer

Progress = Callable[[int, int], None]
"""Called with how many samples are done, and of how many."""
Delivery = tuple[int, Item]
"""Which sample of a submission, and what it got."""
Mail = TypeVar("Mail")


@dataclass
class _Parts:
    """A completion in the making."""

    prompt_index: int
    sequence: Sequence
    chunks: list[Chunk] = field(default_factory=list)

    def completion(self) -> Completion:
        reason, usage = self.chunks[-1].finish_reason, self.chunks[-1].usage
        assert reason is not None and usage is not None
        request = self.sequence.request
        logprobs = tuple(chunk.logprobs for chunk in self.chunks if chunk.logprobs is not None)
        return Completion(
            prompt_index=self.prompt_index,
            sample_index=self.sequence.sample_index,
            prompt_token_ids=tuple(request.prompt),
            token_ids=tuple(chunk.token_id for chunk in self.chunks if chunk.token_id is not None),
            text="".join(chunk.text for chunk in self.chunks),
            logprobs=None if request.params.logprobs is None else logprobs,
            versions=tuple(chunk.version for chunk in self.chunks if chunk.token_id is not None),
            finish_reason=reason,
            prompt_logprobs=self.chunks[0].prompt_logprobs,
            usage=usage,
        )


@dataclass
class _Submission:
    """Requests that were submitted together."""

    parts: list[_Parts] = field(default_factory=list)

    def collector(self, ended: Callable[[Item], object]) -> Callable[[Delivery], None]:
        """What takes in chunks as they come, in any thread; ``ended`` gets each sample's last one, or its error."""

        def put(delivery: Delivery) -> None:
            index, item = delivery
            if isinstance(item, Chunk):
                self.parts[index].chunks.append(item)
                if item.finish_reason is None:
                    return
            ended(item)

        return put

    def completions(self) -> list[Completion]:
        return [part.completion() for part in self.parts]


class Generator:
    """Generation in four manners over one loop, so that all callers share its steps."""

    def __init__(self, loop: Loop, memory: StateMemory, model: ModelFacts, tokenizer: Tokenizer) -> None:
        self._loop = loop
        self._memory = memory
        self._model = model
        self._tokenizer = tokenizer
        self._numbers = count()

    def generate(
        self,
        prompts: Prompts,
        params: SamplingParams | None,
        options: RequestOptions | None,
        progress: Progress | None,
    ) -> list[Completion]:
        ended: SimpleQueue[Item] = SimpleQueue()
        submission = _Submission()
        self._submit(submission, *self._read(prompts, params, options), submission.collector(ended.put))
        try:
            for done, _ in enumerate(submission.parts, 1):
                _chunk(ended.get())
                if progress is not None:
                    progress(done, len(submission.parts))
            return submission.completions()
        finally:
            self._cancel(submission)

    def stream(
        self, prompts: Prompt | Prompts, params: SamplingParams | None, options: RequestOptions | None
    ) -> Iterator[Chunk]:
        deliveries: SimpleQueue[Delivery] = SimpleQueue()
        submission = _Submission()
        self._submit(submission, *self._read(_several(prompts), params, options), deliveries.put)
        try:
            left = len(submission.parts)
            while left:
                chunk = _chunk(deliveries.get()[1])
                left -= chunk.finish_reason is not None
                yield chunk
        finally:
            self._cancel(submission)

    async def agenerate(
        self,
        prompts: Prompts,
        params: SamplingParams | None,
        options: RequestOptions | None,
        progress: Progress | None,
    ) -> list[Completion]:
        mailbox: _Mailbox[Item] = _Mailbox()
        submission = _Submission()
        read = await asyncio.to_thread(self._read, prompts, params, options)
        self._submit(submission, *read, submission.collector(mailbox.put))
        try:
            done, total = 0, len(submission.parts)
            while done < total:
                for item in await mailbox.get():
                    _chunk(item)
                    done += 1
                    if progress is not None:
                        progress(done, total)
            return submission.completions()
        finally:
            self._cancel(submission)

    async def astream(
        self, prompts: Prompt | Prompts, params: SamplingParams | None, options: RequestOptions | None
    ) -> AsyncGenerator[Chunk, None]:
        mailbox: _Mailbox[Delivery] = _Mailbox()
        submission = _Submission()
        read = await asyncio.to_thread(self._read, _several(prompts), params, options)
        self._submit(submission, *read, mailbox.put)
        try:
            left = len(submission.parts)
            while left:
                for _, item in await mailbox.get():
                    chunk = _chunk(item)
                    left -= chunk.finish_reason is not None
                    yield chunk
        finally:
            self._cancel(submission)

    def logits(self, ids: list[int]) -> np.ndarray:
        """The logits after each of the tokens: float32 [T, vocab_size]."""
        deliveries: SimpleQueue[Delivery] = SimpleQueue()
        submission = _Submission()
        params = SamplingParams(max_tokens=0)
        self._submit(submission, [ids], params, RequestOptions(), deliveries.put, wants_logits=True)
        result = np.empty((len(ids), self._model.vocab_size), np.float32)
        try:
            filled = 0
            while filled < len(ids):
                _, rows = deliveries.get()
                if isinstance(rows, BaseException):
                    raise rows
                assert isinstance(rows, np.ndarray)
                result[filled : filled + len(rows)] = rows
                filled += len(rows)
            return result
        finally:
            self._cancel(submission)

    def score(self, ids: list[int]) -> np.ndarray:
        """The natural log-probability of each token given those before it: float32 [T]; the first is nan."""
        deliveries: SimpleQueue[Delivery] = SimpleQueue()
        submission = _Submission()
        params = SamplingParams(max_tokens=0, prompt_logprobs=0)
        self._submit(submission, [ids], params, RequestOptions(), deliveries.put)
        try:
            found = _chunk(deliveries.get()[1]).prompt_logprobs
            assert found is not None
            return np.array([np.nan if one is None else one.model for one in found], np.float32)
        finally:
            self._cancel(submission)

    def _read(
        self, prompts: Prompts, params: SamplingParams | None, options: RequestOptions | None
    ) -> tuple[list[list[int]], SamplingParams, RequestOptions]:
        """What was given, checked, and prompts as token ids."""
        self._loop.check_open()
        params = self._tokenizer.default_sampling() if params is None else params
        options = RequestOptions() if options is None else options
        self._check(params, options)
        return [self._token_ids(prompt) for prompt in _listed(prompts)], params, options

    def _submit(
        self,
        submission: _Submission,
        prompts: List[list[int]],
        params: SamplingParams,
        options: RequestOptions,
        put: Callable[[Delivery], object],
        wants_logits: bool = False,
    ) -> None:
        """Queue requests for the prompts, as parts of ``submission``; ``put`` gets what they give, in other threads."""
        parts = submission.parts
        now = time.perf_counter()
        for prompt_index, ids in enumerate(prompts):

            def deliver(sample_index: int, item: Item, first: int = len(parts)) -> None:
                put((first + sample_index, item))

            request = self._request(ids, params, options, deliver, now, wants_logits)
            request.prompt_index = prompt_index
            parts += [_Parts(prompt_index, sequence) for sequence in request.sequences]
        self._loop.submit([part.sequence.request for part in parts if part.sequence.sample_index == 0])

    def _check(self, params: SamplingParams, options: RequestOptions) -> None:
        if not isinstance(params, SamplingParams):
            raise OptionError(f"params must be SamplingParams, got {type(params).__name__}")
        if not isinstance(options, RequestOptions):
            raise OptionError(f"options must be RequestOptions, got {type(options).__name__}")
        size = self._model.vocab_size
        for token in (*params.logit_bias, *params.stop_token_ids):
            if not 0 <= token < size:
                raise OptionError(
                    f"token ids in logit_bias and stop_token_ids must be from 0 to {size - 1}, got {token}"
                )
        if params.stop and not self._tokenizer.present:
            raise OptionError("stop strings need a tokenizer, which this engine lacks; give stop_token_ids")
        # The step's door would refuse it too, but then for all that share the step.
        check_sampling(sampling_input([RowRequest(params, 0, 0, [0], 1)], size), 1, size)

    def _token_ids(self, prompt: Prompt) -> list[int]:
        size = self._model.vocab_size
        if isinstance(prompt, str):
            ids = token_list(self._tokenizer.encode(prompt), size, "the tokenizer's ids")
        else:
            ids = token_list(prompt, size, "prompt token ids")
        if not ids:
            raise OptionError("a prompt needs at least one token, got none")
        if len(ids) >= self._model.max_context:
            raise OptionError(
                f"a prompt must be shorter than the context of {self._model.max_context} tokens, got {len(ids)}"
            )
        return ids

    def _request(
        self,
        ids: list[int],
        params: SamplingParams,
        options: RequestOptions,
        deliver: Callable[[int, Item], None],
        now: float,
        wants_logits: bool,
    ) -> Request:
        tokenizer = self._tokenizer
        max_tokens = min(params.max_tokens, self._model.max_context - len(ids))
        # The last token sampled needs no states.
        self._memory.check_fits(len(ids) + max(max_tokens - 1, 0))
        request = Request(
            prompt=tuple(ids),
            params=params,
            options=options if options.request_id else replace(options, request_id=secrets.token_hex(8)),
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            max_tokens=max_tokens,
            stop_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else tokenizer.eos_token_ids),
            arrived=now,
            deadline=None if options.deadline is None else now + options.deadline,
            deliver=deliver,
            wants_logits=wants_logits,
        )
        decode = tokenizer.decode if tokenizer.present and max_tokens else lambda _: ""
        request.sequences += [
            Sequence(
                request, index, next(self._numbers), IncrementalText(decode, ids), StopStrings(params.stop), list(ids)
            )
            for index in range(params.n)
        ]
        return request

    def _cancel(self, submission: _Submission) -> None:
        """End what still runs, for nobody waits for it any more."""
        for part in submission.parts:
            if part.sequence.sample_index == 0 and not part.sequence.request.ended:
                self._loop.cancel(part.sequence.request)


class _Mailbox(Generic[Mail]):
    """What threads leave for an event loop, which is woken once for as many as come before it looks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._items: deque[Mail] = deque()
        self._woken = asyncio.Event()

    def put(self, item: Mail) -> None:
        """From any thread."""
        with self._lock:
            self._items.append(item)
            first = len(self._items) == 1
        # A loop that was closed has nobody left to tell.
        with suppress(RuntimeError):
            if first:
                self._loop.call_soon_threadsafe(self._woken.set)

    async def get(self) -> list[Mail]:
        """What has come; waits until something has."""
        await self._woken.wait()
        with self._lock:
            items = list(self._items)
            self._items.clear()
            self._woken.clear()
        return items


def _chunk(item: Item) -> Chunk:
    """A chunk, as it is. Raises the error that it is instead."""
    if isinstance(item, BaseException):
        raise item
    assert isinstance(item, Chunk)
    return item


def _several(prompts: Prompt | Prompts) -> Prompts:
    """One prompt, text or token ids, or several of them: as several."""
    several = isinstance(prompts, List | np.ndarray) and len(prompts) > 0 and not is_number(prompts[0])
    if several and not isinstance(prompts, str):
        return prompts  # type: ignore[return-value]
    return [prompts]  # type: ignore[list-item]


def _listed(prompts: Prompts) -> list[Prompt]:
    """``prompts`` one by one. Raises OptionError for what is neither text nor a list of prompts."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, List | np.ndarray) or isinstance(prompts, bytes | bytearray):
        raise OptionError(f"prompts must be text, or a list of texts or of lists of ids, got {type(prompts).__name__}")
    listed = list(prompts)
    if any(is_number(prompt) for prompt in listed):
        raise OptionError("prompts must be a list of prompts, got a list of numbers; wrap a prompt's ids: [[5, 6]]")
    return listed
