"""``xllmc generate``: continue one prompt on the terminal, or many from a file."""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from .artifact.errors import OptionError
from .engine import Engine
from .requests import Chunk, TokenLogprobs
from .trace import TraceWriter

_FILE_SEQUENCES = 64
"""In one step, of a file's prompts."""


class Timings(NamedTuple):
    """Seconds, and output tokens per second after the first."""

    load: float
    first_token: float
    total: float
    tokens_per_second: float | None


def generate_command(
    engine: Annotated[Path, typer.Argument(help="An engine directory.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt; - reads it from standard input.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A file of prompts, a JSON value a line: text, token ids, or messages.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --prompts: write to this file, a JSON object a line.")
    ] = None,
    samples: Annotated[int | None, typer.Option("-n", help="With --prompts: samples of each.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Treat the prompt as a user's message.")] = False,
    system: Annotated[str | None, typer.Option(help="With --chat: the system message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens to write at most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens; 0: all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest tokens that reach this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Only tokens this times as likely as the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: against repetition.")] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="Against tokens already written.")] = None,
    frequency_penalty: Annotated[float | None, typer.Option(help="The same, for each time.")] = None,
    logit_bias: Annotated[list[str] | None, typer.Option(help="ID=BIAS; may be given often.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End at this text; may be given often.")] = None,
    stop_token_id: Annotated[list[int] | None, typer.Option(help="End at this token; may be given often.")] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on past the end token.")] = False,
    logprobs: Annotated[int | None, typer.Option(help="With --json: this many likeliest tokens.")] = None,
    threads: Annotated[int | None, typer.Option(help="Default: all this process may use.")] = None,
    kv_tokens: Annotated[int | None, typer.Option(help="Tokens the key-value memory holds.")] = None,
    isa: Annotated[str | None, typer.Option(help="An instruction-set level below the best.")] = None,
    huge_pages: Annotated[bool, typer.Option("--huge-pages", help="Copy the weights to huge pages.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Write every step and kernel here, for ui.perfetto.dev.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Continue a prompt, or a file of them. Without sampling options, the model's own defaults hold."""
    given: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "logit_bias": _biases(logit_bias) if logit_bias else None,
        "seed": seed,
        "stop": tuple(stop) if stop else None,
        "stop_token_ids": tuple(stop_token_id) if stop_token_id else None,
        "ignore_eos": ignore_eos or None,
        "logprobs": (logprobs or 0) if as_json else logprobs,
        "n": samples,
    }
    _check_options(prompt, prompts, chat, system, {"--output": output, "-n": samples})
    began = time.perf_counter()
    with (
        Engine.load(
            engine,
            threads=threads,
            max_sequences=1 if prompts is None else _FILE_SEQUENCES,
            kv_tokens=kv_tokens,
            isa=isa,
            huge_pages=huge_pages,
        ) as loaded,
        _traced(loaded, trace),
    ):
        ready = time.perf_counter()
        params = loaded.tokenizer.default_sampling(**{k: v for k, v in given.items() if v is not None})
        if prompts is not None:
            # With it comes rich, which a single prompt need not wait for.
            from .prompts_file import complete_file

            complete_file(loaded, prompts, params, output)
            return
        text = _standard_input() if prompt == "-" else prompt or ""
        ids = loaded.tokenizer.encode_chat(_messages(text, system)) if chat else loaded.tokenizer.encode(text)
        chunks, times = [], []
        for chunk in loaded.stream(ids, params):
            chunks.append(chunk)
            times.append(time.perf_counter())
            if not as_json:
                print(chunk.text, end="", flush=True)
    timings = _timings(began, ready, times)
    if as_json:
        print(json.dumps(report(ids, chunks, timings), ensure_ascii=False, allow_nan=False))
        return
    print()
    if sys.stderr.isatty():
        speed = f", {timings.tokens_per_second:.1f} tokens/s" if timings.tokens_per_second else ""
        print(
            f"[{len(ids)} tokens in, {len(chunks)} out, first after {timings.first_token:.2f} s{speed}]",
            file=sys.stderr,
        )


def _check_options(
    prompt: str | None, prompts: Path | None, chat: bool, system: str | None, of_files: dict[str, object]
) -> None:
    if (prompt is None) == (prompts is None):
        raise OptionError("generate needs either --prompt or --prompts; give one of them")
    if system is not None and not chat:
        raise OptionError("--system needs --chat; add it, or put the text into the prompt")
    if prompts is not None and chat:
        raise OptionError("--chat is for --prompt; in a file, give messages")
    for name, value in of_files.items():
        if prompts is None and value is not None:
            raise OptionError(f"{name} needs --prompts; leave it out")


@contextmanager
def _traced(engine: Engine, file: Path | None) -> Iterator[None]:
    """Write a trace while the body runs, if a file is given."""
    if file is None:
        yield
        return
    with TraceWriter(file) as writer:
        engine.observe(writer)
        try:
            yield
        finally:
            engine.unobserve(writer)
    print(writer.summary, file=sys.stderr)


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as problem:
        raise OptionError(f"the prompt on standard input must be UTF-8: {problem}") from problem


def _messages(text: str, system: str | None) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system is not None else []
    return [*first, {"role": "user", "content": text}]


def _biases(texts: Sequence[str]) -> dict[int, float]:
    biases: dict[int, float] = {}
    for text in texts:
        token, _, bias = text.partition("=")
        try:
            number, value = int(token), float(bias)
        except ValueError as problem:
            raise OptionError(f"--logit-bias must be ID=BIAS, as in 42=-1.5, got {text!r}") from problem
        if number in biases:
            raise OptionError(f"--logit-bias must name each token once, got {number} again")
        biases[number] = value
    return biases


def _timings(began: float, ready: float, times: Sequence[float]) -> Timings:
    later = times[-1] - times[0]
    return Timings(
        load=ready - began,
        first_token=times[0] - ready,
        total=times[-1] - began,
        tokens_per_second=(len(times) - 1) / later if later > 0 else None,
    )


def report(prompt: Sequence[int], chunks: Sequence[Chunk], timings: Timings) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "prompt_token_ids": list(prompt),
        "token_ids": [chunk.token_id for chunk in chunks],
        "text": "".join(chunk.text for chunk in chunks),
        "logprobs": [_logprobs(chunk.logprobs) for chunk in chunks if chunk.logprobs],
        "finish_reason": chunks[-1].finish_reason,
        "timings": timings._asdict(),
    }


def _logprobs(logprobs: TokenLogprobs) -> dict[str, Any]:
    """As JSON, which has no infinity (a token that could not be sampled) and no NaN: null stands for them."""
    found = {name: _finite(getattr(logprobs, name)) for name in ("model", "temperature", "sampled")}
    return found | {"top": [[token, _finite(value)] for token, value in logprobs.top]}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
