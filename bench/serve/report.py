"""What a person reads at the end."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from .compare import Ratio, ratios
from .figures import Distribution, Figures
from .notes import notes
from .protocol import shown
from .session import Line, Measured
from .slo import Objective

_ATTAINED = 0.9


def print_report(measured: Measured, objectives: Sequence[Objective]) -> None:
    """A table of all lines, percentiles of each, what to know of them, and ratios between servers."""
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    for number, server in enumerate(measured.servers):
        version = f", version {_version(server.version)}" if server.version else ""
        eos = "" if server.dialect.ignore_eos else "; outputs may end early (no ignore_eos)"
        console.print(f"server {number + 1}: {server.url}, model {server.dialect.model}{version}{eos}", markup=False)
        lines = [line for line in measured.lines if line.server == number]
        if not lines:
            console.print("  nothing was measured")
            continue
        console.print(_rates(lines, bool(objectives)))
        console.print(_latencies(lines))
        for note, loads in _grouped(lines).items():
            where = f"{', '.join(loads)}: " if len(lines) > 1 else ""
            console.print(f"  {where}{note}", markup=False)
        if objectives and (best := best_rate(lines)) is not None:
            console.print(f"  highest rate that meets the objectives for {_ATTAINED:.0%} of requests: {best:g}/s")
        console.print()
    if objectives:
        console.print(f"good: {' and '.join(str(objective) for objective in objectives)}", markup=False)
    if found := ratios(measured.lines):
        console.print(_ratio_table(found))
    console.print("latencies count from a request's scheduled arrival; p99 and others interpolate")
    if measured.interrupted:
        console.print("interrupted: this is what was done so far")


def best_rate(lines: Sequence[Line]) -> float | None:
    """The highest rate of a sweep at which nine of ten requests were good (DistServe's goodput of a system)."""
    rates = [
        line.load.rate for line in lines if line.load.rate is not None and (line.figures.attainment or 0.0) >= _ATTAINED
    ]
    return max(rates) if rates and len(lines) > 1 else None


def _version(answer: Any) -> str:
    return shown(str(answer.get("version", answer) if isinstance(answer, dict) else answer))


def _grouped(lines: Sequence[Line]) -> dict[str, list[str]]:
    """Each note, and the loads that it is about."""
    found: dict[str, list[str]] = {}
    for line in lines:
        for note in notes(line):
            found.setdefault(note, []).append(str(line.load))
    return found


def _rates(lines: Sequence[Line], goodput: bool) -> Table:
    table = _table("load", "sent", "failed", "cached", "offered/s", "done/s", "in tok/s", "out tok/s")
    table.padding = (0, 1, 0, 0)
    if goodput:
        table.add_column("good/s", justify="right", no_wrap=True)
        table.add_column("good", justify="right", no_wrap=True)
    for line in lines:
        f = line.figures
        cells = [
            str(line.load),
            str(f.requests),
            str(sum(error.count for error in f.errors.values())),
            "-" if f.cached_share is None else f"{f.cached_share:.0%}",
            _number(f.offered_rate),
            _number(f.request_rate),
            _number(f.prompt_tokens_per_s),
            _number(f.output_tokens_per_s),
        ]
        if goodput:
            cells += [_number(f.goodput), "-" if f.attainment is None else f"{f.attainment:.0%}"]
        table.add_row(*cells)
    return table


def _latencies(lines: Sequence[Line]) -> Table:
    table = _table("load", "ms", "mean", "p50", "p90", "p95", "p99")
    for line in lines:
        for number, (name, found) in enumerate(_timings(line.figures)):
            values = ["-"] * 5 if found is None else [_number(1e3 * value) for value in found[1:]]
            table.add_row(str(line.load) if number == 0 else "", name, *values)
    return table


def _timings(f: Figures) -> list[tuple[str, Distribution | None]]:
    rows = [("TTFT", f.ttft), ("TPOT", f.tpot), ("ITL", f.itl), ("E2E", f.e2e)]
    if f.prefix is not None:
        rows += [("TTFT, prefix new", f.prefix.first_ttft), ("TTFT, prefix seen", f.prefix.later_ttft)]
    return [*rows, ("client lag", f.client.lag)]


def _ratio_table(found: Sequence[Ratio]) -> Table:
    table = _table("over server 1", "load", "figure", "ratio", "by round")
    for one in found:
        spread = f"{one.low:.3f} to {one.high:.3f}" + (" CLIENT-BOUND" if one.client_bound else "")
        name = one.metric if one.metric.endswith(("_s", "put")) else f"median {one.metric.upper()}"
        table.add_row(f"server {one.server + 1}", one.load, name, f"{one.ratio:.3f}", spread)
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
