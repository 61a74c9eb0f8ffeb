"""Prompts as token ids, checked against the model before the engine sees them."""

import asyncio
from collections.abc import Sequence

from ..requests import Prompt
from .errors import ApiError
from .served import Served

_QUICK = 8192
"""Characters that are tokenized in a millisecond or two; more would hold up the answers of others."""


async def prompt_ids(served: Served, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt. Raises ApiError for what this model cannot read."""
    size = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))
    return _all_ids(served, prompts) if size <= _QUICK else await asyncio.to_thread(_all_ids, served, prompts)


def _all_ids(served: Served, prompts: Sequence[Prompt]) -> list[list[int]]:
    found = []
    for index, prompt in enumerate(prompts):
        param = "prompt" if len(prompts) == 1 else f"prompt[{index}]"
        if isinstance(prompt, str):
            require_tokenizer(served, param)
            ids = served.engine.tokenizer.encode(prompt)
        else:
            ids = list(prompt)
            check_vocabulary(ids, served.vocabulary, param)
        check_length(ids, served.context, param)
        found.append(ids)
    return found


def require_tokenizer(served: Served, param: str) -> None:
    """Raise ApiError where the engine speaks token ids only."""
    if not served.engine.tokenizer.present:
        raise ApiError(400, f"{param} must be token ids: this engine has no tokenizer", param=param)


def check_vocabulary(ids: Sequence[int], size: int, param: str) -> None:
    """Raise ApiError for an id that the model does not have."""
    if ids and not (min(ids) >= 0 and max(ids) < size):
        wrong = next(token for token in ids if not 0 <= token < size)
        shown = wrong if abs(wrong) < 1 << 64 else "one of more than 64 bits"
        raise ApiError(400, f"{param}: token ids must be from 0 to {size - 1}, got {shown}", param=param)


def check_length(ids: Sequence[int], context: int, param: str) -> None:
    """Raise ApiError for a prompt without tokens, or one that leaves no room for another."""
    if not ids:
        raise ApiError(400, f"{param} needs at least one token, got none", param=param)
    if len(ids) >= context:
        message = f"{param} must be shorter than the model's context of {context} tokens, got {len(ids)}; shorten it"
        raise ApiError(400, message, param=param, code="context_length_exceeded")
