"""``xllmc bench serve``: load for any server that speaks OpenAI's protocol, and how it bears it."""

import asyncio
import json
import resource
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...runtime.artifact.errors import OptionError
from .inputs import read_prompts, read_trace
from .lengths import Lengths, parse_lengths
from .loads import choose_loads
from .slo import Objective, parse_objectives
from .workload import Workload

if TYPE_CHECKING:
    from . import session

_INTERRUPTED, _UNSOUND = 130, 1


def serve_command(
    context: typer.Context,
    urls: Annotated[list[str], typer.Argument(help="Servers, as http://127.0.0.1:8000; several are compared.")],
    rate: Annotated[list[float] | None, typer.Option(help="Open loop: requests a second; several: a sweep.")] = None,
    concurrency: Annotated[
        list[int] | None, typer.Option(help="Closed loop: requests in flight; hides queueing. Several: a sweep.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Open loop: JSON lines with time, prompt_tokens, output_tokens.")
    ] = None,
    arrivals: Annotated[Literal["poisson", "gamma", "constant"], typer.Option(help="Of --rate.")] = "poisson",
    burstiness: Annotated[float, typer.Option(help="Of gamma: its shape; under 1 comes in bursts.")] = 1.0,
    requests: Annotated[int | None, typer.Option(min=1, help="For each load; default: 100, or all of a trace.")] = None,
    duration: Annotated[float | None, typer.Option(help="Instead: seconds of arrivals at each rate.")] = None,
    prompt_tokens: Annotated[
        str | None, typer.Option(help="N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA[:MOST]; default: 128.")
    ] = None,
    output_tokens: Annotated[str | None, typer.Option(help="The same of outputs; default: 64.")] = None,
    vocab: Annotated[
        str | None, typer.Option(help="Prompts are random token ids below N, or from LOW:HIGH; default: words.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help='Prompts from JSON lines: {"prompt": ...} or, chat, {"messages": [...]}.')
    ] = None,
    prefix_tokens: Annotated[int, typer.Option(min=0, help="Tokens before each prompt that its group shares.")] = 0,
    prefix_groups: Annotated[int, typer.Option(min=1, help="Groups that share a prefix.")] = 1,
    chat: Annotated[bool, typer.Option("--chat", help="Chat completions instead of completions.")] = False,
    model: Annotated[str | None, typer.Option(help="Default: the first that the server lists.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="XLLMC_BENCH_API_KEY", help="Is not written to results.")
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option(help="Ask for outputs of just the length given, where the server takes that.")
    ] = True,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.0,
    body: Annotated[str, typer.Option(help="Further fields of each request, a JSON object.")] = "{}",
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same requests.")] = 0,
    warmup: Annotated[int, typer.Option(min=0, help="Requests to each server before measuring.")] = 4,
    rounds: Annotated[int | None, typer.Option(min=1, help="Of it all; default: 1, or 3 of several servers.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one request.")] = 600.0,
    retry: Annotated[int, typer.Option(min=0, help="Send again so often after 429 or 503, as Retry-After says.")] = 0,
    slo: Annotated[list[str] | None, typer.Option(help="ttft:0.5, tpot:0.05 or e2e:9, in seconds: goodput.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write results.json, requests.jsonl and plots here.")
    ] = None,
    plots: Annotated[Literal["svg", "png", "none"], typer.Option(help="With -o: their format, or none.")] = "svg",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Load a server and report time to first token (TTFT), time per output token (TPOT), time between chunks (ITL),
    whole time (E2E), throughput and goodput. Exits with 1 where nothing completed, or the client was the bottleneck.
    """
    loads = choose_loads(rate or (), concurrency or (), trace is not None)
    objectives = parse_objectives(slo or ())
    if trace and (prompt_tokens or output_tokens):
        raise OptionError("--trace has lengths of its own; leave out --prompt-tokens and --output-tokens")
    if prompts and prompt_tokens:
        raise OptionError("--prompts has lengths of its own; leave out --prompt-tokens")
    workload = Workload(
        requests=requests,
        duration=duration,
        arrivals=arrivals,
        burstiness=burstiness,
        trace=read_trace(trace) if trace else None,
        prompt_lengths=_lengths(prompt_tokens, "128", "--prompt-tokens"),
        output_lengths=_lengths(output_tokens, "64", "--output-tokens"),
        prompts=read_prompts(prompts, chat) if prompts else None,
        vocabulary=parse_vocabulary(vocab),
        prefix_tokens=prefix_tokens,
        prefix_groups=prefix_groups,
        chat=chat,
        seed=seed,
    )
    for load in loads:
        workload.count(load)
    _require("aiohttp", "xllmc bench serve needs aiohttp")
    if output and plots != "none":
        _require("matplotlib", f"--plots {plots} needs matplotlib; give --plots none, or")
    from . import session
    from .fine_loop import fine_loop
    from .progress import progress

    plan = session.Plan(
        urls=tuple(urls),
        loads=loads,
        workload=workload,
        rounds=rounds or (3 if len(urls) > 1 else 1),
        warmup=warmup,
        objectives=objectives,
        model=model,
        ignore_eos=ignore_eos,
        temperature=temperature,
        body=_object(body),
        timeout=timeout,
        retries=retry,
    )
    if output:
        output.mkdir(parents=True, exist_ok=True)
    _allow_many_connections()
    with progress() as watch, asyncio.Runner(loop_factory=fine_loop) as runner:
        measured = runner.run(session.measure(plan, api_key, watch))
    config = {name: value for name, value in context.params.items() if name not in ("api_key", "as_json", "output")}
    _show(measured, config, objectives, output, plots, as_json)
    if measured.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if any(not line.figures.completed or line.figures.client.bottleneck for line in measured.lines):
        raise typer.Exit(_UNSOUND)


def _show(
    measured: "session.Measured",
    config: Mapping[str, Any],
    objectives: tuple[Objective, ...],
    output: Path | None,
    plots: str,
    as_json: bool,
) -> None:
    from .report import print_report
    from .results import request_line, results

    whole = results(measured, config)
    if output:
        (output / "results.json").write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
        with (output / "requests.jsonl").open("w") as file:
            for part in measured.parts:
                for record in part.run.records:
                    print(json.dumps(request_line(part, record), separators=(",", ":")), file=file)
    if output and plots != "none":
        from .plots import save_plots

        save_plots(measured, objectives, output, plots)
    if as_json:
        print(json.dumps(whole, allow_nan=False))
    else:
        print_report(measured, objectives)


def parse_vocabulary(text: str | None) -> tuple[int, int] | None:
    """``N`` as (0, N), ``LOW:HIGH`` as both. Raises OptionError."""
    if text is None:
        return None
    low, _, high = text.rpartition(":")
    try:
        found = int(low or 0), int(high)
    except ValueError as problem:
        raise OptionError(f"--vocab must be N or LOW:HIGH, whole numbers, got {text!r}") from problem
    if not 0 <= found[0] < found[1]:
        raise OptionError(f"--vocab must have ids from 0, the lower first, got {text!r}")
    return found


def _lengths(given: str | None, default: str, option: str) -> Lengths:
    return parse_lengths(default if given is None else given, option)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as problem:
        raise OptionError(f"--body must be a JSON object: {problem}") from problem
    if not isinstance(value, dict):
        raise OptionError(f"--body must be a JSON object, got {type(value).__name__}")
    return value


def _require(module: str, what: str) -> None:
    if find_spec(module) is None:
        raise OptionError(f"{what}: pip install 'xllmc[bench]'")


def _allow_many_connections() -> None:
    """Each request in flight takes a file descriptor, and the usual limit is 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
