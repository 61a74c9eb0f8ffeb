"""OpenAI's completions and chat completions: what is asked, and what one streamed event says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .records import Work
from .sse import EventStreamError

_SPOKEN = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "token_ids")
"""Fields of a chat's delta that hold what a model wrote."""


@dataclass(frozen=True)
class Dialect:
    """What one server is asked for, and which extensions it takes."""

    model: str
    chat: bool
    ignore_eos: bool
    """Outputs have just the length asked for."""
    usage: bool
    """The server counts tokens, and says so at a stream's end."""
    temperature: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields, which win."""

    @property
    def path(self) -> str:
        """Under the server's ``/v1``."""
        return "/chat/completions" if self.chat else "/completions"

    def body(self, work: Work) -> bytes:
        """The request, as JSON."""
        asked: dict[str, Any] = {"model": self.model, "max_tokens": work.output_tokens, "stream": True}
        asked["temperature"] = self.temperature
        if self.temperature:
            asked["seed"] = work.index
        if not self.chat:
            asked["prompt"] = work.prompt
        elif isinstance(work.prompt, str):
            asked["messages"] = [{"role": "user", "content": work.prompt}]
        else:
            asked["messages"] = work.prompt
        if self.usage:
            asked["stream_options"] = {"include_usage": True}
        if self.ignore_eos:
            asked["ignore_eos"] = True
        return json.dumps(asked | dict(self.extra), separators=(",", ":")).encode()


class Usage(NamedTuple):
    """The server's counts of tokens; None: not said."""

    prompt: int | None = None
    output: int | None = None
    cached: int | None = None


class Event(NamedTuple):
    """One event of a stream."""

    spoke: bool
    """It carries tokens: one, or several."""
    finish_reason: str | None
    usage: Usage | None
    error: str | None


def read_event(data: bytes, chat: bool) -> Event:
    """Raises EventStreamError where ``data`` is not what the protocol says."""
    try:
        event = json.loads(data)
    except ValueError as problem:
        raise EventStreamError(f"an event must be JSON, got {shown(data)}") from problem
    if not isinstance(event, dict):
        raise EventStreamError(f"an event must be a JSON object, got {shown(data)}")
    if event.get("error"):
        return Event(False, None, None, error_message(event))
    choices = event.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise EventStreamError(f"an event's choices must be a list of objects, got {shown(data)}")
    usage = _usage(event["usage"]) if isinstance(event.get("usage"), dict) else None
    if not choices:
        return Event(False, None, usage, None)
    choice = choices[0]
    reason = choice.get("finish_reason")
    return Event(_spoke_chat(choice) if chat else _spoke(choice), reason if reason else None, usage, None)


def _spoke(choice: dict[str, Any]) -> bool:
    # A token may make no text yet: half a character, or the start of a stop string.
    return bool(choice.get("text") or choice.get("token_ids")) or not choice.get("finish_reason")


def _spoke_chat(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return False
    if any(delta.get(name) for name in _SPOKEN) or choice.get("token_ids"):
        return True
    # The opening event has a role and no token; see _spoke for empty text.
    return delta.get("content") == "" and "role" not in delta and not choice.get("finish_reason")


def _usage(usage: dict[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details")
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(details.get("cached_tokens")) if isinstance(details, dict) else None,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


def error_message(answer: object) -> str:
    """What an error object says, in whichever of the usual forms."""
    if isinstance(answer, dict):
        inner = answer.get("error") or answer.get("detail") or answer.get("message") or answer
        if isinstance(inner, dict):
            inner = inner.get("message") or inner
        return shown(inner if isinstance(inner, str) else json.dumps(inner))
    return shown(str(answer))


def shown(text: str | bytes) -> str:
    """On one line, not too long."""
    line = " ".join((text.decode(errors="replace") if isinstance(text, bytes) else text).split())
    return line if len(line) <= 200 else f"{line[:200]}..."
