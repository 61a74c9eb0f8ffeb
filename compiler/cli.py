"""``xllmc compile`` and ``xllmc demo``."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..models.config import VERIFIED_FAMILIES
from ..models.hub import resolve_model
from ..runtime.artifact.errors import CheckpointError
from ..runtime.engine import Engine
from .driver import CompileResult, compile_model
from .options import CompileOptions
from .pipeline import PassReport
from .progress import Estimate, Listener, Silent

DEMO_PROMPTS = (
    'def read_config(path):\n    """',
    "class Queue:\n    def __init__(self",
    "import os\nimport sys\n",
)
DEMO_TOKENS = 96
DEMO_SAMPLING = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 5}


def compile_command(
    model: Annotated[str, typer.Argument(help="A Hugging Face model directory, or a hub id.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The engine directory to write.")],
    target: Annotated[str, typer.Option(help="What to compile for: cpu.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of weights and activations: bf16 or fp32.")] = "bf16",
    max_context: Annotated[
        int | None, typer.Option(help="Positions a sequence may have; default: the model's.")
    ] = None,
    isa: Annotated[
        list[str] | None, typer.Option(help="Instruction sets to build for: all (default), native, or names.")
    ] = None,
    random_weights: Annotated[
        int | None, typer.Option(help="Invent weights from this seed; config.json is enough.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="C++ compilers run at once.")] = 2,
    skip_failed_pass: Annotated[
        bool, typer.Option("--skip-failed-pass", help="Leave out a pass that fails its checks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Compile a Hugging Face model into an engine directory."""
    options = CompileOptions(target, dtype, max_context, tuple(isa or ["all"]), random_weights, jobs, skip_failed_pass)
    with unwinding_on_sigterm(), listening() as listener:
        result = compile_model(resolve_model(model), out, options, listener)
    for note in notes(result):
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(summary(result, out)))
        return
    console = Console()
    console.print(pass_table(result))
    console.print(closing_line(result, out), highlight=False)


def demo_command(
    out: Annotated[Path, typer.Option("--output", "-o", help="Where to write the engine.")] = Path("build/demo.engine"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Compile the bundled model, and let it write."""
    with resources.as_file(resources.files("xllmc.models.demo")) as folder:
        model = folder / "checkpoints" / "demo"
        if not model.is_dir():
            raise CheckpointError(f"the bundled model is not at {model}; install xllmc with its package data")
        out.parent.mkdir(parents=True, exist_ok=True)
        with listening() as listener:
            result = compile_model(model, out, CompileOptions(), listener)
    console = Console(stderr=as_json)
    console.print(pass_table(result))
    console.print(closing_line(result, out), highlight=False)
    texts, speeds = [], []
    with Engine.load(out) as engine:
        for prompt in DEMO_PROMPTS:
            params = engine.tokenizer.default_sampling(max_tokens=DEMO_TOKENS, **DEMO_SAMPLING)
            began = time.perf_counter()
            (completion,) = engine.generate([prompt], params)
            speeds.append(len(completion.token_ids) / (time.perf_counter() - began))
            texts.append(completion.text)
            console.rule(style="dim")
            console.print(f"[bold]{escape(prompt)}[/bold]{escape(completion.text)}", highlight=False, soft_wrap=True)
    console.rule(style="dim")
    speed = sorted(speeds)[len(speeds) // 2]
    console.print(
        f"{speed:.0f} tokens/s. Try: xllmc generate {out} --prompt 'def main('", highlight=False, soft_wrap=True
    )
    if as_json:
        print(json.dumps(summary(result, out) | {"tokens_per_second": speed, "texts": texts}))


def escape(text: str) -> str:
    return text.replace("[", r"\[")


@contextmanager
def unwinding_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as an exit does, so that what is temporary is removed."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- what is shown


def notes(result: CompileResult) -> Iterator[str]:
    """What a user may want to know although nothing is wrong."""
    family = result.manifest.model.family
    if family not in VERIFIED_FAMILIES:
        yield f"{family} is not among the families tested here ({', '.join(VERIFIED_FAMILIES)})"
    if unread := result.unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        yield f"the model has no place for {len(unread)} tensors of the checkpoint: {', '.join(unread[:3])}{more}"


@contextmanager
def listening() -> Iterator[Listener]:
    """Progress bars on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    columns = (TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)


class Bars:
    """A listener that draws one bar for each stage."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None

    def estimated(self, estimate: Estimate) -> None:
        self.progress.console.print(estimate_line(estimate), highlight=False)

    def stage(self, name: str, total: int) -> None:
        self.finish()
        self.task = self.progress.add_task(name, total=total, what="")

    def advanced(self, units: int, what: str) -> None:
        if self.task is not None:
            self.progress.update(self.task, advance=units, what=what)

    def passed(self, report: PassReport) -> None:
        pass

    def finish(self) -> None:
        if self.task is not None:
            total = self.progress.tasks[self.task].total
            self.progress.update(self.task, completed=total, what="")


def estimate_line(estimate: Estimate) -> str:
    return (
        f"engine {size(estimate.engine_bytes)}, up to {size(estimate.memory_bytes)} of memory, "
        f"about {estimate.seconds:.0f} s"
    )


def size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def pass_table(result: CompileResult) -> Table:
    table = Table(title="passes", title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("pass", "matches", "missed", "checked", "numerics", "ops", "ms"):
        table.add_column(column, justify="left" if column in ("pass", "numerics") else "right", no_wrap=True)
    for r in result.reports:
        milliseconds = 1000 * (r.seconds + r.check_seconds)
        cells = (r.matches, len(r.near_misses), r.regions, r.numerics, r.calls, f"{milliseconds:.0f}")
        table.add_row(r.name, *map(str, cells))
    return table


def closing_line(result: CompileResult, out: Path) -> str:
    facts = result.manifest.model
    total = sum(f.bytes for f in result.manifest.files)
    return (
        f"{out}: {facts.architecture}, {facts.parameters / 1e6:.1f} M parameters, {facts.dtype}, {size(total)}, "
        f"{sum(result.seconds.values()):.1f} s"
    )


def summary(result: CompileResult, out: Path) -> dict:
    return {
        "engine": str(out),
        "model": result.manifest.model.model_dump(),
        "bytes": sum(f.bytes for f in result.manifest.files),
        "notes": list(notes(result)),
        "estimate": asdict(result.estimate),
        "seconds": result.seconds,
        "passes": [
            {
                "name": r.name,
                "stage": r.stage,
                "numerics": r.numerics,
                "matches": r.matches,
                "near_misses": list(r.near_misses),
                "checked": r.regions,
                "ops_left": r.calls,
            }
            for r in result.reports
        ],
    }
