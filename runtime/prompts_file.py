"""Many prompts in a file, one JSON value a line, and their completions in another."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .artifact.errors import OptionError
from .engine import Engine
from .json_lines import read_json_lines
from .requests import Completion
from .sampling import SamplingParams
from .tokenizer import Tokenizer


def complete_file(engine: Engine, file: Path, params: SamplingParams, output: Path | None) -> None:
    """Continue every prompt of ``file`` and write the completions to ``output``, which appears when it is whole, or to
    standard output; with a bar on a terminal.
    """
    prompts = read_prompts(file, engine.tokenizer)
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise OptionError(f"--output must be a file in a directory that is there, got {output}")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as bars:
        bar = bars.add_task("samples", total=len(prompts) * params.n)
        completions = engine.generate(prompts, params, progress=lambda done, _: bars.update(bar, completed=done))
    _write(completion_lines(completions), output)


def read_prompts(file: Path, tokenizer: Tokenizer) -> list[list[int]]:
    """The token ids of every prompt. A line is a text, a list of token ids, or an object with ``prompt`` (either) or
    ``messages``. Raises OptionError that names the line.
    """
    found = []
    for where, value in read_json_lines(file):
        try:
            found.append(_token_ids(value, tokenizer))
        except OptionError as problem:
            raise OptionError(f"{where}: {problem}") from problem
    if not found:
        raise OptionError(f"{file} must hold prompts, one JSON value a line, got none")
    return found


def _token_ids(value: Any, tokenizer: Tokenizer) -> list[int]:
    if isinstance(value, dict) and len(value) == 1 and "prompt" in value:
        value = value["prompt"]
    elif isinstance(value, dict) and len(value) == 1 and isinstance(value.get("messages"), list):
        return tokenizer.encode_chat(value["messages"])
    if isinstance(value, str):
        return tokenizer.encode(value)
    if isinstance(value, list) and all(isinstance(token, int) and not isinstance(token, bool) for token in value):
        return value
    shown = f"an object with {', '.join(map(repr, value))}" if isinstance(value, dict) else type(value).__name__
    raise OptionError(
        f"a prompt must be a text, a list of token ids, or an object with prompt or messages alone, got {shown}"
    )


def completion_lines(completions: Sequence[Completion]) -> Iterator[str]:
    """One JSON object a completion, in the order of the prompts and samples."""
    for done in completions:
        record: dict[str, Any] = {
            "prompt_index": done.prompt_index,
            "sample_index": done.sample_index,
            "text": done.text,
            "token_ids": done.token_ids,
            "finish_reason": done.finish_reason,
        }
        if done.logprobs is not None:
            record["logprobs"] = [logprobs.model for logprobs in done.logprobs]
        yield json.dumps(record, ensure_ascii=False, allow_nan=False)


def _write(lines: Iterator[str], file: Path | None) -> None:
    if file is None:
        for line in lines:
            sys.stdout.write(f"{line}\n")
        return
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
