"""The bodies of answers, as the OpenAPI document describes them. Fields without a default are always there."""

from typing import Literal

from pydantic import BaseModel

from ..requests import FinishReason
from .call import Call


class Body(BaseModel):
    """Written as JSON without the fields that were not given."""

    def json_bytes(self) -> bytes:
        return self.model_dump_json(exclude_unset=True).encode()


class CachedTokens(Body):
    """Of the prompt's tokens."""

    cached_tokens: int
    """Not computed, as an earlier request had them."""


class UsageBody(Body):
    """Tokens in and out, over all prompts and samples; a prompt counts once, whatever n."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


def usage_body(call: Call) -> UsageBody:
    """What the samples of ``call`` that have ended took."""
    return UsageBody(
        prompt_tokens=call.prompt_tokens,
        completion_tokens=call.output_tokens,
        total_tokens=call.prompt_tokens + call.output_tokens,
        prompt_tokens_details=CachedTokens(cached_tokens=call.cached_tokens),
    )


class CompletionLogprobs(Body):
    r"""By token. Text of half a character is written bytes:\xe2\x80; an infinite one is -9999.0."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """Null for a prompt's first token."""
    top_logprobs: list[dict[str, float] | None]
    """The token itself is always among them."""
    text_offset: list[int]
    """Where the token begins in the text, in characters."""


class CompletionChoice(Body):
    """One sample of one prompt."""

    index: int
    """Prompts in their order, n samples each."""
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None


class CompletionBody(Body):
    """An answer of /v1/completions, or a chunk of one."""

    id: str
    object: Literal["text_completion"]
    created: int
    """Unix time in seconds."""
    model: str
    system_fingerprint: str
    """Changes with the compiled model and with its weights."""
    choices: list[CompletionChoice]
    usage: UsageBody | None = None


class TopLogprob(Body):
    """A token that could have been."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    r"""A token of an answer; half a character is written \xe2\x80; an infinite logprob is -9999.0."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Body):
    """By token."""

    content: list[TokenLogprob]
    refusal: None


class AnswerMessage(Body):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Body):
    """One sample."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    token_ids: list[int] | None = None


class ChatBody(Body):
    """An answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageBody
    prompt_token_ids: list[int] | None = None


class Delta(Body):
    """What a chunk adds to a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(Body):
    """What a chunk adds to one sample."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    token_ids: list[int] | None = None


class ChatChunk(Body):
    """A chunk of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: UsageBody | None = None
    prompt_token_ids: list[int] | None = None


class ModelBody(Body):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    """Tokens of prompt and answer together."""


class ModelList(Body):
    """All names of the model."""

    object: Literal["list"]
    data: list[ModelBody]


class Status(Body):
    """How the server is."""

    status: Literal["ok", "loading", "draining"]


class Version(Body):
    """What serves."""

    version: str
