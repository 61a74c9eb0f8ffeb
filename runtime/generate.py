"""From prompts to completions: requests for the batcher, and their chunks put together again."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from .artifact.errors import OptionError
from .batcher import Batcher, Chunk, FinishReason, Request, TokenLogprobs
from .checks import is_number, token_list
from .sampling import SamplingParams
from .text import IncrementalText

if TYPE_CHECKING:
    from .engine import Engine

Prompt = str | Sequence[int]
Prompts = str | Sequence[Prompt]
"""One text, or several texts or lists of token ids."""
Delivery = tuple[int, Chunk | BaseException]
"""Which request, and what it got."""


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


@dataclass
class _Parts:
    """A completion in the making."""

    prompt_index: int
    request: Request
    chunks: list[Chunk] = field(default_factory=list)

    def completion(self) -> Completion:
        reason = self.chunks[-1].finish_reason
        assert reason is not None
        logprobs = tuple(chunk.logprobs for chunk in self.chunks if chunk.logprobs is not None)
        return Completion(
            prompt_index=self.prompt_index,
            sample_index=self.request.sample_index,
            prompt_token_ids=tuple(self.request.prompt),
            token_ids=tuple(chunk.token_id for chunk in self.chunks),
            text="".join(chunk.text for chunk in self.chunks),
            logprobs=None if self.request.params.logprobs is None else logprobs,
            versions=tuple(chunk.version for chunk in self.chunks),
            finish_reason=reason,
        )


class Generator:
    """Generation in four manners over one batcher, so that all callers share its steps."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._batcher = Batcher(engine)

    def generate(self, prompts: Prompts, params: SamplingParams | None) -> list[Completion]:
        deliveries: SimpleQueue[Delivery] = SimpleQueue()
        parts = self._submit(prompts, params, deliveries.put)
        try:
            for _ in parts:
                while _collect(parts, deliveries.get()):
                    pass
            return [part.completion() for part in parts]
        finally:
            _cancel(parts)

    def stream(self, prompt: Prompt, params: SamplingParams | None) -> Iterator[Chunk]:
        deliveries: SimpleQueue[Delivery] = SimpleQueue()
        parts = self._submit([prompt], params, deliveries.put)
        try:
            left = len(parts)
            while left:
                delivery = deliveries.get()
                left -= not _collect(parts, delivery)
                yield parts[delivery[0]].chunks[-1]
        finally:
            _cancel(parts)

    async def agenerate(self, prompts: Prompts, params: SamplingParams | None) -> list[Completion]:
        deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        parts = await self._submit_from_loop(prompts, params, deliveries)
        try:
            for _ in parts:
                while _collect(parts, await deliveries.get()):
                    pass
            return [part.completion() for part in parts]
        finally:
            _cancel(parts)

    async def astream(self, prompt: Prompt, params: SamplingParams | None) -> AsyncIterator[Chunk]:
        deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        parts = await self._submit_from_loop([prompt], params, deliveries)
        try:
            left = len(parts)
            while left:
                delivery = await deliveries.get()
                left -= not _collect(parts, delivery)
                yield parts[delivery[0]].chunks[-1]
        finally:
            _cancel(parts)

    def close(self) -> None:
        """Fail what runs and wait for its step to end."""
        self._batcher.close()

    async def _submit_from_loop(
        self, prompts: Prompts, params: SamplingParams | None, deliveries: "asyncio.Queue[Delivery]"
    ) -> list[_Parts]:
        loop = asyncio.get_running_loop()

        def put(delivery: Delivery) -> None:
            # A loop that was closed has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(deliveries.put_nowait, delivery)

        return await asyncio.to_thread(self._submit, prompts, params, put)

    def _submit(
        self, prompts: Prompts, params: SamplingParams | None, put: Callable[[Delivery], object]
    ) -> list[_Parts]:
        self._engine.check_open()
        params = self._engine.tokenizer.default_sampling() if params is None else params
        self._check(params)
        parts: list[_Parts] = []
        for prompt_index, prompt in enumerate(_listed(prompts)):
            ids = self._token_ids(prompt)
            seed = secrets.randbits(64) if params.seed is None else params.seed
            for sample_index in range(params.n):

                def deliver(item: Chunk | BaseException, index: int = len(parts)) -> None:
                    put((index, item))

                parts.append(_Parts(prompt_index, self._request(ids, params, seed, sample_index, deliver)))
        self._batcher.submit([part.request for part in parts])
        return parts

    def _check(self, params: SamplingParams) -> None:
        if not isinstance(params, SamplingParams):
            raise OptionError(f"params must be SamplingParams, got {type(params).__name__}")
        size = self._engine.manifest.model.vocab_size
        for token in (*params.logit_bias, *params.stop_token_ids):
            if not 0 <= token < size:
                raise OptionError(
                    f"token ids in logit_bias and stop_token_ids must be from 0 to {size - 1}, got {token}"
                )
        if params.stop and not self._engine.tokenizer.present:
            raise OptionError("stop strings need a tokenizer, which this engine lacks; give stop_token_ids")

    def _token_ids(self, prompt: Prompt) -> list[int]:
        model = self._engine.manifest.model
        if isinstance(prompt, str):
            ids = token_list(self._engine.tokenizer.encode(prompt), model.vocab_size, "the tokenizer's ids")
        else:
            ids = token_list(prompt, model.vocab_size, "prompt token ids")
        if not ids:
            raise OptionError("a prompt needs at least one token, got none")
        if len(ids) >= model.max_context:
            raise OptionError(
                f"a prompt must be shorter than the context of {model.max_context} tokens, got {len(ids)}"
            )
        return ids

    def _request(
        self,
        ids: list[int],
        params: SamplingParams,
        seed: int,
        sample_index: int,
        deliver: Callable[[Chunk | BaseException], None],
    ) -> Request:
        tokenizer = self._engine.tokenizer
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else tokenizer.eos_token_ids)
        return Request(
            prompt=ids,
            params=params,
            seed=seed,
            sample_index=sample_index,
            max_tokens=min(params.max_tokens, self._engine.manifest.model.max_context - len(ids)),
            stop_ids=ends,
            text=IncrementalText(tokenizer.decode if tokenizer.present else lambda _: "", ids),
            deliver=deliver,
        )


def _listed(prompts: Prompts) -> list[Prompt]:
    """``prompts`` one by one. Raises OptionError for what is neither text nor a list of prompts."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Sequence | np.ndarray) or isinstance(prompts, bytes | bytearray):
        raise OptionError(f"prompts must be text, or a list of texts or of lists of ids, got {type(prompts).__name__}")
    listed = list(prompts)
    if any(is_number(prompt) for prompt in listed):
        raise OptionError("prompts must be a list of prompts, got a list of numbers; wrap a prompt's ids: [[5, 6]]")
    return listed


def _collect(parts: list[_Parts], delivery: Delivery) -> bool:
    """Add a chunk to its request's parts; whether more of that request will come. Raises what the batcher raised."""
    index, item = delivery
    if isinstance(item, BaseException):
        raise item
    parts[index].chunks.append(item)
    return item.finish_reason is None


def _cancel(parts: list[_Parts]) -> None:
    """End what still runs, for nobody waits for it any more."""
    for part in parts:
        part.request.cancelled = True
