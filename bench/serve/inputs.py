"""Files a user brings: prompts, and traces of arrivals. Both are JSON lines."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...runtime.artifact.errors import OptionError
from ...runtime.checks import is_number, is_whole
from ...runtime.json_lines import read_json_lines
from .records import Prompt


class Arrival(NamedTuple):
    """One line of a trace: seconds from its start, and lengths in tokens."""

    time: float
    prompt_tokens: int
    output_tokens: int


class GivenPrompt(NamedTuple):
    """One line of a file of prompts."""

    prompt: Prompt
    output_tokens: int | None


def read_trace(file: Path) -> tuple[Arrival, ...]:
    """Lines ``{"time": 0.5, "prompt_tokens": 128, "output_tokens": 64}``; the first is put at 0. Raises OptionError."""
    arrivals = []
    for where, line in _objects(file, set(Arrival._fields)):
        if set(line) != set(Arrival._fields):
            raise OptionError(
                f"{where} must have time, prompt_tokens and output_tokens, got {', '.join(line) or 'none'}"
            )
        if not is_number(line["time"]) or not 0 <= line["time"] < math.inf:
            raise OptionError(f"{where}: time must be a number of seconds from 0, got {line['time']!r}")
        for name in ("prompt_tokens", "output_tokens"):
            _check_tokens(where, name, line[name])
        arrivals.append(Arrival(float(line["time"]), line["prompt_tokens"], line["output_tokens"]))
    arrivals.sort()
    return tuple(arrival._replace(time=arrival.time - arrivals[0].time) for arrival in arrivals)


def read_prompts(file: Path, chat: bool) -> tuple[GivenPrompt, ...]:
    """Lines ``{"prompt": "..."}`` (text or token ids) or, for chat, ``{"messages": [...]}``, each with
    ``output_tokens`` if it likes. Raises OptionError.
    """
    found = []
    for where, line in _objects(file, {"prompt", "messages", "output_tokens"}):
        if ("prompt" in line) == ("messages" in line):
            raise OptionError(f"{where} must have one of prompt and messages, got {', '.join(line) or 'none'}")
        if "output_tokens" in line:
            _check_tokens(where, "output_tokens", line["output_tokens"])
        found.append(GivenPrompt(_prompt(where, line, chat), line.get("output_tokens")))
    return tuple(found)


def _prompt(where: str, line: dict[str, Any], chat: bool) -> Prompt:
    prompt = line.get("prompt", line.get("messages"))
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list) or not prompt:
        raise OptionError(f"{where}: a prompt must be text or a list that is not empty, got {prompt!r}")
    if "messages" in line:
        if not chat:
            raise OptionError(f"{where} has messages, which need --chat")
        if not all(isinstance(message, dict) for message in prompt):
            raise OptionError(f"{where}: messages must be a list of objects")
    elif chat or not all(is_whole(token) for token in prompt):
        raise OptionError(f"{where}: a prompt that is a list must hold token ids, which --chat does not take")
    return tuple(prompt)


def _check_tokens(where: str, name: str, value: object) -> None:
    if not is_whole(value) or value < 1:
        raise OptionError(f"{where}: {name} must be a whole number from 1, got {value!r}")


def _objects(file: Path, known: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    empty = True
    for where, value in read_json_lines(file):
        empty = False
        if not isinstance(value, dict):
            raise OptionError(f"{where} must be one JSON object, got {type(value).__name__}")
        if unknown := value.keys() - known:
            raise OptionError(
                f"{where} has unknown keys {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
            )
        yield where, value
    if empty:
        raise OptionError(f"{file} must hold at least one JSON line, got none")
