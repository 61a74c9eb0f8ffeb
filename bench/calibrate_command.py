"""``xllmc calibrate``: measure this machine for the cost model, and keep what was found."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..runtime.machine import Profile, profile_file, save_profile
from ..runtime.threads import default_threads
from .calibrate import calibrate, stages


def calibrate_command(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the profile; default: this user's cache.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all this process may use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure this machine's limits and how near to them kernels come, for cost estimates and predictions."""
    with progress(stages()) as say:
        profile = calibrate(threads or default_threads(), say)
    file = output or profile_file()
    save_profile(profile, file)
    if as_json:
        print(json.dumps(as_record(profile, file)))
    else:
        print_profile(profile, file)


def as_record(profile: Profile, file: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {"file": str(file), "name": profile.name, "profile": profile.model_dump(mode="json")}


def print_profile(profile: Profile, file: Path) -> None:
    """Ceilings, and a line for each kind of kernel."""
    console = Console(width=None if Console().is_terminal else 120)
    limits = profile.ceilings
    memory, cache = limits.bandwidth[-1].per_second, limits.bandwidth[0].per_second
    arithmetic = ", ".join(f"{rate / 1e9:.0f} GFLOP/s {dtype}" for dtype, rate in limits.arithmetic.items())
    console.print(f"{profile.cpu}, {limits.threads} threads, {profile.isa}", highlight=False)
    console.print(
        f"reads {memory / 1e9:.1f} GB/s from memory, {cache / 1e9:.0f} GB/s from the nearest cache; {arithmetic}; "
        f"a launch takes {1e6 * limits.launch:.2f} us, a step {1e6 * limits.step:.0f} us beside its launches",
        highlight=False,
    )
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("kernel", no_wrap=True)
    for column in ("launches", "error", "held out", "error", "overhead us", "streaming", "handling", "arithmetic"):
        table.add_column(column, justify="right", no_wrap=True)
    for kind, rates in (*profile.kernels.items(), ("others", profile.other)):
        errors = (
            str(rates.samples),
            _percent(rates.error),
            str(rates.held_out_samples),
            _percent(rates.held_out_error),
        )
        shares = (f"{share:.3g}" for share in (rates.streaming, rates.handling, rates.arithmetic))
        table.add_row(kind, *errors, f"{1e6 * rates.overhead:.2f}", *shares)
    console.print(table)
    console.print(
        f"errors are medians of predicted over measured, less 1; kept in {file}", highlight=False, soft_wrap=True
    )


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:.0%}"


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    columns = (TextColumn("calibrating"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=total, what="", completed=-1)
        yield lambda what: bars.update(task, advance=1, what=what)
