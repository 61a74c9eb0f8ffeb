"""What a compile came to: a table, a line, or a JSON object."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from ...models.families import FAMILIES
from ..driver import CompileResult
from .progress_bars import size


def notes(result: CompileResult) -> Iterator[str]:
    """What a user may want to know although nothing is wrong."""
    family = result.manifest.model.family
    tested = [f.name for f in FAMILIES]
    if family not in tested:
        yield f"{family} is not among the families tested here ({', '.join(tested)})"
    if unread := result.unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        yield f"the model has no place for {len(unread)} tensors of the checkpoint: {', '.join(unread[:3])}{more}"
    if result.manifest.random_weights is not None:
        yield "random weights are made up on the device when the engine is loaded, and differ from a CPU's"
    yield from result.notes


def pass_table(result: CompileResult) -> Table:
    table = Table(title="passes", title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("pass", "matches", "missed", "checked", "numerics", "ops", "ms"):
        table.add_column(column, justify="left" if column in ("pass", "numerics") else "right", no_wrap=True)
    plugins = {name: p.name for p in result.manifest.plugins for name in p.passes}
    for r in result.reports:
        milliseconds = 1000 * (r.seconds + r.check_seconds)
        cells = (r.matches, len(r.near_misses), r.regions, r.numerics, r.calls, f"{milliseconds:.0f}")
        label = f"{r.name} ({plugins[r.name]})" if r.name in plugins else r.name
        table.add_row(label, *map(str, cells))
    return table


def closing_line(result: CompileResult, out: Path) -> str:
    facts = result.manifest.model
    total = sum(f.bytes for f in result.manifest.files)
    made = f"{facts.architecture}, {facts.parameters / 1e6:.1f} M parameters, {facts.dtype}, {size(total)}"
    took, predicted = f"{sum(result.seconds.values()):.1f} s", result.predicted
    if predicted is None:
        return f"{out}: {made}, {took}"
    speed = f"{predicted.decode:.0f} tokens/s decoding, {predicted.prefill:.0f} prefilling"
    return f"{out}: {made}, {took}; predicted for {predicted.machine}: {speed}"


def summary(result: CompileResult, out: Path) -> dict:
    return {
        "engine": str(out),
        "model": result.manifest.model.model_dump(),
        "bytes": sum(f.bytes for f in result.manifest.files),
        "notes": list(notes(result)),
        "plugins": [p.model_dump() for p in result.manifest.plugins],
        "estimate": asdict(result.estimate),
        "seconds": result.seconds,
        "predicted": result.predicted._asdict() if result.predicted else None,
        "passes": [
            {
                "name": r.name,
                "stage": r.stage,
                "numerics": r.numerics,
                "matches": r.matches,
                "options": r.options,
                "sites": [s.where for s in r.sites if s.matched],
                "near_misses": list(r.near_misses),
                "checked": r.regions,
                "ops_left": r.calls,
            }
            for r in result.reports
        ],
    }
