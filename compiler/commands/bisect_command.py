"""``xllmc bisect``: which pass, and at which site, changes what a model computes."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...models.config import load_config
from ...models.hub import resolve_model
from ...models.trace import TraceOptions, trace
from ...runtime.artifact.errors import OptionError
from ..check.bisect import TOLERANCE, Found, bisect
from ..driver import family_named
from ..ir.program import Program
from ..options import DTYPES
from ..pipeline.listing import pass_list
from ..pipeline.settings import pass_settings
from .opt_command import read_program
from .pass_options import AsJson, Config, Disabled, Plugins, Settings

FOUND = 1


def bisect_command(
    model: Annotated[str, typer.Argument(help="A model directory, a hub id, or a program in text form.")],
    dtype: Annotated[str, typer.Option(help="Of weights and activations: bf16, fp32, or on devices fp16.")] = "bf16",
    layers: Annotated[
        int | None, typer.Option(min=1, help="Only so many layers of the model, which is faster; default: all.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Relative difference that is a fault.")] = TOLERANCE,
    target: Annotated[str, typer.Option(help="What would be compiled for.")] = "cpu",
    settings: Settings = None,
    disable: Disabled = None,
    plugins: Plugins = True,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Find the first pass, and its first site, after which a model computes something else. Exit code 1 if one does.

    Weights are invented, and passes run without their checks.
    """
    listed = pass_list(target, pass_settings(settings or (), disable or (), plugins, config))
    program = traced(model, dtype, layers, plugins)
    with Console(stderr=True).status("tracing") if sys.stderr.isatty() else _Quiet() as status:
        found = bisect(program, listed.passes, tolerance, status.update)
    if as_json:
        print(json.dumps({"found": None if found is None else asdict(found)}))
    elif found is None:
        print(f"{len(listed.passes)} passes, and none changes what {model} computes; kernels were not run")
    else:
        print("\n".join(lines(found)))
    if found is not None:
        raise typer.Exit(FOUND)


def traced(model: str, dtype: str, layers: int | None, plugins: bool) -> Program:
    if dtype not in DTYPES:
        raise OptionError(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if Path(model).is_file():
        return read_program(Path(model))
    loaded = load_config(resolve_model(model))
    if layers is not None:
        if layers > loaded.num_hidden_layers:
            raise OptionError(f"--layers must be at most the model's {loaded.num_hidden_layers}, got {layers}")
        loaded.num_hidden_layers = layers
        if getattr(loaded, "layer_types", None):
            loaded.layer_types = loaded.layer_types[:layers]
    family, _ = family_named(loaded.model_type, plugins)
    return trace(loaded, TraceOptions(DTYPES[dtype], None, family.handlers)).program


def lines(found: Found) -> list[str]:
    place = f" at site {found.site}, {found.where}" if found.site else ""
    return [f"pass {found.pass_name} (number {found.position + 1}){place}: {found.reason}", *found.diff.splitlines()]


class _Quiet:
    """A status that does not show."""

    def __enter__(self) -> "_Quiet":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, what: str) -> None:
        pass
