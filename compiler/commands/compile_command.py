"""``xllmc compile``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...models.hub import resolve_model
from ..driver import compile_model
from ..options import CompileOptions
from ..pipeline.settings import pass_settings
from .compile_summary import closing_line, notes, pass_table, summary
from .emit_form import emit, emitter_named, refuse_engine_options
from .pass_options import Config, Disabled, Plugins, Settings
from .progress_bars import listening, unwinding_on_sigterm


def compile_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A Hugging Face model directory, or a hub id.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The engine directory to write; with --emit, a file.")],
    target: Annotated[str, typer.Option(help="What to compile for: cpu, cuda:sm_90, ascend:910b ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of weights and activations: bf16, fp32, or on devices fp16.")] = "bf16",
    emit_as: Annotated[
        str | None,
        typer.Option(
            "--emit",
            help="Write the optimised forward graph instead of an engine: mlir or onnx. Sampling is not part of it.",
        ),
    ] = None,
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
    batch_invariant: Annotated[
        bool,
        typer.Option(
            "--batch-invariant", help="On devices: no result depends on what else is in a step. The CPU's never does."
        ),
    ] = False,
    skip_failed_pass: Annotated[
        bool, typer.Option("--skip-failed-pass", help="Leave out a pass that fails its checks.")
    ] = False,
    allow_missed: Annotated[
        bool, typer.Option("--allow-missed", help="Go on where a pass matches less than the family declares.")
    ] = False,
    verify: Annotated[
        str, typer.Option(help="What each pass's result must stand: numeric, structure or off.")
    ] = "numeric",
    settings: Settings = None,
    disable: Disabled = None,
    plugins: Plugins = True,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Compile a Hugging Face model into an engine directory, or into a file that other tools read."""
    emitter = None if emit_as is None else emitter_named(emit_as)
    if emitter:
        refuse_engine_options(context)
    options = CompileOptions(
        target=target,
        dtype=dtype,
        max_context=max_context,
        isa=tuple(isa or ["all"]),
        random_weights=random_weights,
        jobs=jobs,
        batch_invariant=batch_invariant,
        skip_failed_pass=skip_failed_pass,
        passes=pass_settings(settings or (), disable or (), plugins, config),
        verification=verify,  # type: ignore[arg-type]  # which CompileOptions checks
        allow_missed=allow_missed,
    )
    if emitter:
        emit(model, out, emitter, options, as_json)
        return
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
