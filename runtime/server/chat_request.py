"""The body of POST /v1/chat/completions."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from ..sampling import SamplingParams
from .fields import SamplingFields, TopCount

_OWN_VARIABLES = ("messages", "self")
"""Of the template's, what the request's other fields give it."""
MaxTokens = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]


def _nothing_of(name: str) -> AfterValidator:
    def check(value: Any) -> None:
        if value not in (None, [], "none", "auto"):
            raise ValueError(f"must be left out: this server offers no {name}")

    return AfterValidator(check)


_NULL = WithJsonSchema({"type": "null"})
NoTools = Annotated[Any, _nothing_of("tools"), _NULL]
"""Fields that clients send empty, and that are otherwise refused in words that say why."""
NoAudio = Annotated[Any, _nothing_of("audio"), _NULL]
NoAnnotations = Annotated[Any, _nothing_of("annotations"), _NULL]


def _text_format(value: dict[str, Any]) -> dict[str, Any]:
    if value != {"type": "text"}:
        raise ValueError('must be {"type": "text"}, or left out: this server gives no structured output')
    return value


def _variables(values: dict[str, Any]) -> dict[str, Any]:
    for name in _OWN_VARIABLES:
        if name in values:
            raise ValueError(f"must not hold {name!r}, which the chat template is given anyway")
    return values


TextFormat = Annotated[
    dict[str, Any],
    AfterValidator(_text_format),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"type": {"const": "text"}},
            "required": ["type"],
            "additionalProperties": False,
        }
    ),
]


class TextPart(BaseModel):
    """A part of a message. Parts are joined with nothing between them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message; answers of this server can be sent back as they are. The role ``developer`` is ``system``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: NoAnnotations = None
    audio: NoAudio = None
    function_call: NoTools = None
    tool_calls: NoTools = None

    @model_validator(mode="after")
    def _says_something(self) -> "Message":
        if self.content is None and self.role != "assistant":
            raise ValueError(f"content of a {self.role}'s message must be text, got null")
        return self

    def for_template(self) -> dict[str, str]:
        """As chat templates read it."""
        parts = self.content or ""
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        role = "system" if self.role == "developer" else self.role
        named = {"name": self.name, "tool_call_id": self.tool_call_id}
        return {"role": role, "content": text} | {key: value for key, value in named.items() if value is not None}


class ChatRequest(SamplingFields):
    """Answer a conversation."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: MaxTokens | None = None
    """Tokens to write at most; default: what the context has room for."""
    max_completion_tokens: MaxTokens | None = None
    """The newer name of max_tokens."""
    logprobs: bool | None = None
    """Log-probabilities of the tokens, of the model's own distribution."""
    top_logprobs: TopCount | None = None
    """With logprobs: of this many likeliest tokens in the place of each."""
    chat_template_kwargs: Annotated[dict[str, Any], AfterValidator(_variables)] | None = None
    """Variables for the model's chat template (enable_thinking, say)."""
    response_format: TextFormat | None = None
    """Only text."""
    modalities: list[Literal["text"]] | None = None
    audio: NoAudio = None
    tools: NoTools = None
    tool_choice: NoTools = None
    functions: NoTools = None
    function_call: NoTools = None

    @model_validator(mode="after")
    def _agreeing(self) -> "ChatRequest":
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit: give one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true; set it, or leave them out")
        return self

    def params(self, defaults: SamplingParams, room: int) -> SamplingParams:
        """``room``: tokens that the context has left. Raises OptionError."""
        limit = self.max_completion_tokens or self.max_tokens
        return self.sampling(
            defaults,
            max_tokens=room if limit is None else min(limit, room),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )
