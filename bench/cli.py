"""``xllmc bench``: measurements, each a command."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..runtime.artifact.errors import OptionError
from ..runtime.artifact.reader import read_manifest
from . import floors as floors_bench
from . import runtime as runtime_bench
from .cuda.command import cuda_command
from .cuda.tune_command import tune_command
from .serve.command import serve_command

app = typer.Typer(help="Measure.", no_args_is_help=True)
app.command("serve")(serve_command)
app.command("cuda")(cuda_command)
app.command("tune")(tune_command)


@app.callback()
def bench() -> None:
    """Measure this machine and what runs on it."""


def say(text: str) -> None:
    """Progress, for someone who watches."""
    if sys.stderr.isatty():
        print(f"{text} ...", file=sys.stderr)


@app.command()
def floors(
    rounds: Annotated[int, typer.Option(min=1, help="Times that limits and engine are measured, in turns.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of both.")] = os.cpu_count() or 1,
    keep: Annotated[Path | None, typer.Option(help="Keep model and engine in this directory.")] = None,
    record: Annotated[Path | None, typer.Option(help="Write figures and versions to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Speed, load time and memory of a Qwen3-0.6B geometry (random weights, bf16) against the machine's own limits."""
    with tempfile.TemporaryDirectory(prefix="xllmc-") as temporary:
        directory = keep or Path(temporary)
        measured = floors_bench.measure(directory, rounds, threads, say)
        whole = floors_bench.record(measured, read_manifest(directory / "model.engine"))
    if record:
        record.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(whole) if as_json else floors_bench.report(measured))


@app.command()
def runtime(
    engine: Annotated[Path, typer.Argument(help="An engine directory.")],
    rounds: Annotated[int, typer.Option(min=1, help="Times that each side is measured, in turns.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Of the kernels.")] = os.cpu_count() or 1,
    record: Annotated[Path | None, typer.Option(help="Write figures and versions to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Host work beside steps, and what a shared prefix saves."""
    measured = runtime_bench.measure(engine, rounds, threads)
    whole = runtime_bench.record(measured, engine)
    if record:
        record.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(whole) if as_json else runtime_bench.report(measured))


@app.command()
def fusion(
    family: Annotated[list[str] | None, typer.Option(help="llama, qwen3, gemma2 or gpt2; default: all.")] = None,
    record: Annotated[Path | None, typer.Option(help="Write figures and versions to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Kernels per layer: ours, and TorchInductor's for the same layer. Takes minutes, most of them Inductor's."""
    from . import fusion as fusion_bench  # torch, which the other commands do without

    families = family or list(fusion_bench.MODELS)
    if unknown := [name for name in families if name not in fusion_bench.MODELS]:
        raise OptionError(f"--family must be one of {', '.join(fusion_bench.MODELS)}, got {unknown[0]!r}")
    with tempfile.TemporaryDirectory(prefix="xllmc-") as directory:
        found = fusion_bench.measure(Path(directory), families, say)
    whole = fusion_bench.record(found)
    if record:
        record.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(whole) if as_json else fusion_bench.report(found))
