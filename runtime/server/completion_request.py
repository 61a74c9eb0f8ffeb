"""The body of POST /v1/completions."""

from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from ..requests import Prompt
from ..sampling import SamplingParams
from .fields import SamplingFields, TopCount

_ID = {"type": "integer", "minimum": 0}
_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "items": _ID},
        {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": _ID}},
    ]
}


def _prompts(value: Any) -> tuple[Prompt, ...]:
    """One prompt or several, each text or token ids. Checked by hand: a long list's four possible types would make
    four lists of errors.
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return tuple(value)
        if _are_ids(value):
            return (value,)
        if all(isinstance(item, list) and item and _are_ids(item) for item in value):
            return tuple(value)
    raise ValueError("must be text, a list of texts, a list of token ids or a list of such lists, and not empty")


def _are_ids(value: list[Any]) -> bool:
    return all(type(item) is int for item in value)  # true and false are none


class CompletionRequest(SamplingFields):
    """Continue one prompt or several."""

    prompt: Annotated[tuple[Prompt, ...], PlainValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)]
    """Text or token ids, or a list of either."""
    max_tokens: Annotated[int, Field(ge=0, le=(1 << 31) - 1)] | None = 16
    """Tokens to write at most; 0 needs echo."""
    echo: bool | None = None
    """Begin the text with the prompt."""
    logprobs: TopCount | None = None
    """Log-probabilities of the tokens, and of this many likeliest ones in the place of each; the prompt's too with
    echo. They are of the model's own distribution: before temperature, penalties and biases."""
    best_of: Annotated[int, Field(ge=1)] | None = None
    """Only as many as n."""
    suffix: None = None
    """Text cannot be inserted before a suffix."""

    @model_validator(mode="after")
    def _agreeing(self) -> "CompletionRequest":
        if self.best_of not in (None, self.samples):
            raise ValueError(f"best_of must equal n: the best of more is not chosen, got {self.best_of}")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens must be at least 1 unless echo is true, got 0")
        return self

    def params(self, defaults: SamplingParams) -> SamplingParams:
        """Raises OptionError."""
        return self.sampling(
            defaults,
            max_tokens=16 if self.max_tokens is None else self.max_tokens,
            logprobs=self.logprobs,
            prompt_logprobs=self.logprobs if self.echo else None,
        )
