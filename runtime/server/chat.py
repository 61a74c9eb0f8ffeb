"""The answers of /v1/chat/completions."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from ..artifact.errors import OptionError
from ..requests import Chunk, RequestOptions, TokenLogprobs
from ..sampling import SamplingParams
from .call import Call
from .chat_request import ChatRequest
from .errors import ApiError
from .event_stream import DONE, event
from .logprobs import chat_logprobs
from .responses import (
    AnswerMessage,
    ChatBody,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatLogprobs,
    Delta,
    usage_body,
)
from .served import Served


async def conversation_ids(served: Served, asked: ChatRequest) -> list[int]:
    """The conversation's token ids, up to where the answer starts. Raises ApiError where the template refuses it."""

    def ids() -> list[int]:
        messages = [message.for_template() for message in asked.messages]
        return served.engine.tokenizer.encode_chat(messages, **(asked.chat_template_kwargs or {}))

    try:
        # Always in a thread: how long a template takes cannot be told from the messages' sizes.
        return await asyncio.to_thread(ids)
    except OptionError as problem:
        raise ApiError(400, str(problem), param="messages") from problem
    except (ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as problem:
        # A template is a program of the model's makers; what it was not written for may fail in any of these ways.
        said = f"the model's chat template fails on these messages: {problem}"
        raise ApiError(400, said, param="messages") from problem


class ChatAnswer:
    """The answer to one request, whose conversation is ``ids``."""

    def __init__(self, served: Served, call: Call, asked: ChatRequest, ids: list[int]) -> None:
        self._asked = asked
        self._ids = ids
        self._served = served
        self._call = call
        self._head = {
            "id": f"chatcmpl-{call.request_id}",
            "created": call.created,
            "model": served.name(asked.model),
            "system_fingerprint": served.fingerprint,
        }
        call.add_prompt(len(ids))

    async def whole(self, params: SamplingParams, options: RequestOptions) -> ChatBody:
        """All at once. Raises what the engine raises."""
        found = await self._served.engine.agenerate([self._ids], params, options=options)
        choices = []
        for index, each in enumerate(found):
            self._call.add(each.usage, each.sample_index, each.finish_reason)
            choice = ChatChoice(
                index=index,
                message=AnswerMessage(role="assistant", content=each.text, refusal=None),
                logprobs=self._logprobs(each.token_ids, each.logprobs or ()),
                finish_reason=each.finish_reason,
            )
            if self._asked.return_token_ids:
                choice.token_ids = list(each.token_ids)
            choices.append(choice)
        body = ChatBody(**self._head, object="chat.completion", choices=choices, usage=usage_body(self._call))
        if self._asked.return_token_ids:
            body.prompt_token_ids = self._ids
        return body

    async def events(self, params: SamplingParams, options: RequestOptions) -> AsyncGenerator[bytes, None]:
        """Each sample begins with its role; then one for every token, which may have no text yet."""
        begun: set[int] = set()
        async with aclosing(self._served.engine.astream(self._ids, params, options=options)) as chunks:
            async for chunk in chunks:
                self._call.see(chunk)
                if chunk.sample_index not in begun:
                    first = self._chunk([self._role(chunk.sample_index)])
                    if self._asked.return_token_ids and not begun:
                        first.prompt_token_ids = self._ids
                    begun.add(chunk.sample_index)
                    yield event(first.json_bytes())
                yield event(self._chunk([self._piece(chunk)]).json_bytes())
        if self._asked.usage_chunk:
            last = self._chunk([])
            last.usage = usage_body(self._call)
            yield event(last.json_bytes())
        yield DONE

    def _role(self, index: int) -> ChatChunkChoice:
        return ChatChunkChoice(
            index=index, delta=Delta(role="assistant", content=""), logprobs=None, finish_reason=None
        )

    def _piece(self, chunk: Chunk) -> ChatChunkChoice:
        tokens = [] if chunk.token_id is None else [chunk.token_id]
        piece = ChatChunkChoice(
            index=chunk.sample_index,
            delta=Delta(content=chunk.text) if chunk.text else Delta(),
            logprobs=self._logprobs(tokens, [] if chunk.logprobs is None else [chunk.logprobs]),
            finish_reason=chunk.finish_reason,
        )
        if self._asked.return_token_ids:
            piece.token_ids = tokens
        return piece

    def _chunk(self, choices: list[ChatChunkChoice]) -> ChatChunk:
        chunk = ChatChunk(**self._head, object="chat.completion.chunk", choices=choices)
        if self._asked.usage_chunk:
            chunk.usage = None
        return chunk

    def _logprobs(self, tokens: Sequence[int], found: Sequence[TokenLogprobs]) -> ChatLogprobs | None:
        if not self._asked.logprobs:
            return None
        return chat_logprobs(self._served.texts, list(zip(tokens, found, strict=True)))
