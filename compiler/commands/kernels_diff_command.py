"""``xllmc kernels-diff``: which generated kernels of fixed tiny models differ from a baseline."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..diff.changes import Change
from ..kernels_diff import ModelDiff, SnapshotDiff, compare_snapshots, read_baseline, snapshot, write_baseline
from .diff_command import DIFFERENT, print_lines

WIDE = 160
"""Columns outside of a terminal: kernels' names are long, and should stay whole."""
STYLES = {"added": "green", "removed": "red", "changed": "yellow", "launches": "cyan"}


def kernels_diff_command(
    baseline: Annotated[Path, typer.Argument(help="A directory that --update wrote.")],
    update: Annotated[bool, typer.Option("--update", help="Write the baseline instead of comparing with it.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print how the sources of kernels changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Generate the kernels of fixed tiny models and compare them with a baseline. Exit code 1 if anything changed."""
    before = None if update else read_baseline(baseline)
    after = snapshot(started=_tell)
    if before is None:
        write_baseline(baseline, after)
        report = {"baseline": str(baseline), "models": sorted(after.models)}
        print(json.dumps(report) if as_json else f"{baseline}: kernels of {', '.join(after.models)}")
        return
    diff = compare_snapshots(before, after)
    if as_json:
        print(json.dumps(diff.to_json()))
    else:
        print_diff(diff, baseline, show)
    if not diff.equal:
        raise typer.Exit(DIFFERENT)


def _tell(name: str) -> None:
    if sys.stderr.isatty():
        print(f"generating {name}", file=sys.stderr)


def print_diff(diff: SnapshotDiff, baseline: Path, show: bool) -> None:
    """Tables of what changed, and with ``show`` the sources; nothing where nothing changed."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    for model in diff.models:
        console.print(kernel_table(model))
    if diff.headers:
        console.print(header_table(diff.headers))
    if show:
        print_lines(source_lines(diff))
    if not diff.equal:
        print_lines(iter([f"write the new baseline with: xllmc kernels-diff {baseline} --update"]))


def kernel_table(model: ModelDiff) -> Table:
    table = Table(title=model.name, title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("kernel", overflow="fold")
    table.add_column("launches before", justify="right")
    table.add_column("after", justify="right")
    table.add_column("change", no_wrap=True)
    for k in model.kernels:
        before, after = (str(n) if n else "-" for n in (k.launches_before, k.launches_after))
        table.add_row(k.name, before, after, k.kind, style=STYLES[k.kind])
    return table


def header_table(headers: tuple[Change, ...]) -> Table:
    table = Table(title="headers", title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("header", "sha256 before", "after"):
        table.add_column(column, no_wrap=True)
    for change in headers:
        table.add_row(change.what, *((side or "-")[:12] for side in (change.before, change.after)))
    return table


def source_lines(diff: SnapshotDiff) -> Iterator[str]:
    """Unified diffs of every kernel whose source changed, came or went."""
    for model in diff.models:
        for kernel in model.kernels:
            if kernel.source.changed:
                yield f"--- {model.name} {kernel.before or 'none'}"
                yield f"+++ {model.name} {kernel.after or 'none'}"
                yield from kernel.source.unified()
