"""The fields that completions and chat completions share, and what they ask of the sampler.

A field that is not here is an error, naming it. Ignored, as they cannot change an answer: ``metadata``, ``store``,
``service_tier``, ``safety_identifier``, ``prompt_cache_key``, ``prediction`` and ``parallel_tool_calls``. ``user`` is
the key that the queue is shared fairly by, where no API key says who asks.
"""

from dataclasses import replace
from typing import Annotated, Any, TypeVar

import pydantic_core
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ..checks import INT32_MAX
from ..requests import RequestOptions
from ..sampling import PENALTY_LIMIT, REPETITION_LIMITS, TEMPERATURE_LIMIT, TOP_LOGPROBS, SamplingParams
from .errors import ApiError, refuse

N_LIMIT = 128
"""As OpenAI's."""
_STOPS, _STOP_LENGTH, _ENTRIES = 16, 256, 1024
"""The tail of every sample is searched for stop strings after every token, and biases are added at every token."""
_UINT64 = (1 << 64) - 1

StopString = Annotated[str, Field(min_length=1, max_length=_STOP_LENGTH)]
TopCount = Annotated[int, Field(ge=0, le=TOP_LOGPROBS)]
TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
Bias = Annotated[float, Field(ge=-PENALTY_LIMIT, le=PENALTY_LIMIT)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


def _biased_tokens(biases: dict[str, float]) -> dict[str, float]:
    for token in biases:
        if not (token.isascii() and token.isdecimal() and len(token) <= 10):
            raise ValueError(f'must be of token ids, as in {{"42": -1.5}}, got {token[:40]!r}')
    if len({int(token) for token in biases}) < len(biases):
        raise ValueError("must name each token once")
    return biases


class StreamOptions(BaseModel):
    """Of a streamed answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    """End with a chunk that says how many tokens it took."""
    include_obfuscation: bool | None = None
    """Ignored: nothing is padded."""


class SamplingFields(BaseModel):
    """How to sample, and how to answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    model: str | None = None
    """A name from /v1/models; may be left out."""
    n: Annotated[int, Field(ge=1, le=N_LIMIT)] | None = None
    """Samples of each prompt."""
    temperature: Annotated[float, Field(ge=0, le=TEMPERATURE_LIMIT)] | None = None
    """0: the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], Field(max_length=_ENTRIES), AfterValidator(_biased_tokens)] | None = Field(
        default=None,
        json_schema_extra={"additionalProperties": False, "patternProperties": {"^[0-9]{1,10}$": {"type": "number"}}},
    )
    """Token ids to what is added to their logits."""
    seed: Annotated[int, Field(ge=-(1 << 63), le=_UINT64)] | None = None
    """Equal requests of equal seed give equal answers, bit for bit, whatever else the server does."""
    stop: StopString | Annotated[list[StopString], Field(max_length=_STOPS)] | None = None
    """Strings that end the text; they are cut off."""
    stream: bool | None = None
    """Answer in server-sent events."""
    stream_options: StreamOptions | None = None

    top_k: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = None
    """Only the k likeliest tokens; 0 and -1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only tokens at least this times as likely as the likeliest."""
    repetition_penalty: Annotated[float, Field(ge=REPETITION_LIMITS[0], le=REPETITION_LIMITS[1])] | None = None
    """Above 1: against tokens of prompt and answer."""
    stop_token_ids: Annotated[list[TokenId], Field(max_length=_ENTRIES)] | None = None
    """Tokens that end the text."""
    ignore_eos: bool | None = None
    """Go on past the model's own end tokens."""
    priority: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)] | None = None
    """Higher goes first; the server's max_priority is the highest it takes."""
    cache_salt: Annotated[str, Field(max_length=256)] | None = None
    """Cached prefixes are shared only among requests of equal salt."""
    return_token_ids: bool | None = None
    """Give the token ids of prompt and answer too."""

    user: Annotated[str, Field(max_length=256)] | None = None
    """Who asks; used to share the queue fairly."""
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prediction: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    @field_validator("stream_options")
    @classmethod
    def _of_a_stream(cls, value: StreamOptions | None, others: ValidationInfo) -> StreamOptions | None:
        if value is not None and not others.data.get("stream"):
            raise ValueError("needs stream to be true; set it, or leave them out")
        return value

    @property
    def samples(self) -> int:
        return self.n or 1

    def sampling(self, defaults: SamplingParams, **others: Any) -> SamplingParams:
        """The sampler's parameters: ``defaults`` where nothing is asked for, and ``others``. Raises OptionError."""
        asked = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "min_p": self.min_p,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": self.repetition_penalty,
            "logit_bias": {int(token): bias for token, bias in (self.logit_bias or {}).items()},
            "seed": None if self.seed is None else self.seed & _UINT64,
            "stop": (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            "stop_token_ids": tuple(self.stop_token_ids or ()),
            "ignore_eos": bool(self.ignore_eos),
            "n": self.samples,
        }
        return replace(defaults, **{name: value for name, value in asked.items() if value is not None} | others)

    def options(self, request_id: str, key: str, deadline: float | None, max_priority: int) -> RequestOptions:
        """How the request is treated among others. ``key``: of the API key's holder; empty: nobody is known. Raises
        ApiError for a priority above ``max_priority``.
        """
        priority = self.priority or 0
        if priority > max_priority:
            said = f"priority must be {max_priority} at most (the server's max_priority), got {priority}; ask for less"
            raise ApiError(400, said, param="priority", code="invalid_value")
        return RequestOptions(
            request_id=request_id,
            priority=priority,
            key=key or (f"user:{self.user}" if self.user else ""),
            deadline=deadline,
            cache_salt=self.cache_salt or "",
        )

    @property
    def usage_chunk(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


Fields = TypeVar("Fields", bound=SamplingFields)


def parse(kind: type[Fields], body: bytes) -> Fields:
    """A request's body as ``kind``. Raises ApiError for what is no JSON (which has neither NaN nor Infinity), for
    unknown fields and for wrong values.
    """
    try:
        data = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as problem:
        raise ApiError(400, f"the body must be JSON in UTF-8: {problem}", code="invalid_json") from problem
    try:
        return kind.model_validate(data)
    except ValidationError as problem:
        refuse(problem)
