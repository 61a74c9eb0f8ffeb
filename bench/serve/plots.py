"""Plots of a measurement, each a file that explains itself. matplotlib is imported with this module."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from .figures import Distribution, Figures
from .loads import Load
from .records import Record
from .session import Line, Measured
from .slo import Objective

_MARKERS = "osD^vP*X"


def save_plots(measured: Measured, objectives: Sequence[Objective], directory: Path, form: str) -> list[Path]:
    """Writes ``latencies``, ``timeline`` and, of several loads, ``loads`` into ``directory``; their paths."""
    made: dict[str, Figure] = {}
    if any(line.figures.completed for line in measured.lines):
        made["latencies"] = _latencies(measured, objectives)
    if measured.parts:
        made["timeline"] = _timeline(measured)
    if len(_loads(measured)) > 1:
        made["loads"] = _by_load(measured, objectives)
    paths = []
    # The same figures give the same file: no date, no random ids.
    with matplotlib.rc_context({"svg.hashsalt": "xllmc", "svg.fonttype": "none"}):
        for name, figure in made.items():
            paths.append(directory / f"{name}.{form}")
            figure.savefig(paths[-1], dpi=150, metadata={"Date": None} if form == "svg" else None)
    return paths


def _latencies(measured: Measured, objectives: Sequence[Objective]) -> Figure:
    """Cumulative distributions: one row for each server, one curve for each load."""
    loads, servers = _loads(measured), measured.servers
    figure = Figure(figsize=(11, 1 + 3.5 * len(servers)), layout="constrained")
    grid = figure.subplots(len(servers), 2, squeeze=False, sharex="col")
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(loads)))
    for number, row in enumerate(grid):
        for axes, metric, title in zip(
            row, ("ttft", "tpot"), ("Time to first token (TTFT)", "Time per output token (TPOT)"), strict=True
        ):
            for load, colour in zip(loads, colours, strict=True):
                records = _records(measured, number, load)
                values = sorted(v for r in records if r.failure is None and (v := getattr(r, metric)) is not None)
                if values:
                    shares = np.arange(1, len(values) + 1) / len(values)
                    axes.step(1e3 * np.array(values), shares, where="post", color=colour, label=str(load))
            _mark_objective(axes, metric, objectives)
            axes.set_title(f"{_name(measured, number)}: {title}", fontsize=9)
            axes.set_xlabel("milliseconds" + (", from the scheduled arrival" if metric == "ttft" else ""))
            axes.set_ylabel("share of completed requests")
            axes.set_ylim(0, 1.02)
            _log_if_wide(axes)
            _finish(axes)
    return figure


def _timeline(measured: Measured) -> Figure:
    """Requests in flight over time, of the first round: one panel for each load, one curve for each server."""
    loads = _loads(measured)
    figure = Figure(figsize=(11, 1 + 2.3 * len(loads)), layout="constrained")
    grid = figure.subplots(len(loads), 1, squeeze=False)
    for axes, load in zip(grid[:, 0], loads, strict=True):
        for number in range(len(measured.servers)):
            part = next((p for p in measured.parts if (p.server, p.load) == (number, load)), None)
            if part is None or not part.run.records:
                continue
            times, flying = in_flight(part.run.records)
            (curve,) = axes.step(times, flying, where="post", label=_name(measured, number))
            failed = [r.ended for r in part.run.records if r.failure is not None]
            if failed:
                axes.plot(failed, np.zeros(len(failed)), "x", color=curve.get_color(), label="failed", clip_on=False)
        axes.set_title(f"Requests that arrived and are not done, load {load}, first round", fontsize=9)
        axes.set_xlabel("seconds from the start of the run")
        axes.set_ylabel("requests")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axes)
    return figure


def in_flight(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the requests that have arrived and not ended from each time on."""
    steps = sorted([(r.scheduled, 1) for r in records] + [(r.ended, -1) for r in records])
    return np.array([at for at, _ in steps]), np.cumsum([change for _, change in steps])


def _by_load(measured: Measured, objectives: Sequence[Objective]) -> Figure:
    """Latencies and what gets done, against the load: one curve for each server."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    ttft, tpot, rate = figure.subplots(1, 3)
    closed = any(load.closed for load in _loads(measured))
    latencies: tuple[tuple[Axes, str, Callable[[Figures], Distribution | None]], ...] = (
        (ttft, "ttft", lambda f: f.ttft),
        (tpot, "tpot", lambda f: f.tpot),
    )
    for number in range(len(measured.servers)):
        lines = sorted((line for line in measured.lines if line.server == number), key=lambda line: _x(line.load))
        style: dict[str, Any] = {
            "color": f"C{number % 10}",
            "marker": _MARKERS[number % len(_MARKERS)],
            "markersize": 4,
        }
        name = _name(measured, number)
        for axes, _, of in latencies:
            found = [(_x(line.load), of(line.figures)) for line in lines]
            for label, form, percentile in (("p50", "-", "p50"), ("p99", "--", "p99")):
                points = [(x, 1e3 * getattr(one, percentile)) for x, one in found if one is not None]
                axes.plot(*_columns(points), form, label=f"{name}, {label}", **style)
        rate.plot(
            *_columns([(_x(n.load), n.figures.request_rate) for n in lines]), "--", label=f"{name}, done", **style
        )
        if objectives:
            goods = [(_x(line.load), line.figures.goodput or 0.0) for line in lines]
            rate.plot(*_columns(goods), "-", label=f"{name}, goodput", **style)
        _ring_doubtful(rate, lines)
    if not closed:
        most = max(_x(load) for load in _loads(measured))
        rate.plot([0, most], [0, most], ":", color="grey", label="all that is offered")
    for axes, metric, _ in latencies:
        for objective in objectives:
            if objective.metric == metric:
                axes.axhline(1e3 * objective.seconds, color="crimson", linewidth=1, label=str(objective))
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
        axes.set_ylabel("milliseconds")
        axes.set_title(f"{metric.upper()} against load", fontsize=9)
    rate.set_ylabel("requests/s")
    good = f"; goodput: {' and '.join(str(o) for o in objectives)}" if objectives else ""
    rate.set_title(f"Requests done{good}", fontsize=9)
    for axes in (ttft, tpot, rate):
        axes.set_xlabel("requests in flight (closed loop)" if closed else "offered load, requests/s (open loop)")
        axes.set_xlim(left=0)
        _finish(axes)
    return figure


def _ring_doubtful(axes: Axes, lines: Sequence[Line]) -> None:
    for label, colour, wanted in (
        ("saturated", "black", [line for line in lines if line.figures.saturated]),
        ("client-bound: not the server's limit", "crimson", [n for n in lines if n.figures.client.bottleneck]),
    ):
        if wanted:
            points = _columns([(_x(line.load), line.figures.request_rate) for line in wanted])
            size = 12 if colour == "black" else 16
            axes.plot(*points, "o", markersize=size, markerfacecolor="none", markeredgecolor=colour, label=label)


def _mark_objective(axes: Axes, metric: str, objectives: Sequence[Objective]) -> None:
    for objective in objectives:
        if objective.metric == metric:
            axes.axvline(1e3 * objective.seconds, color="crimson", linewidth=1, label=str(objective))


def _log_if_wide(axes: Axes) -> None:
    values = np.concatenate([np.asarray(curve.get_xdata(), dtype=float) for curve in axes.get_lines()] or [np.ones(1)])
    if values.min() > 0 and values.max() / values.min() > 30:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)


def _plain_numbers(axis: Axis) -> None:
    """Without powers of ten, and with numbers between them where they lie far apart."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axis.get_view_interval()
    between = (2.0, 5.0) if high / low < 100 else ()
    axis.set_minor_locator(LogLocator(subs=between or (1.0,)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        axes.legend(once.values(), once.keys(), fontsize=7, handlelength=3.5)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _x(load: Load) -> float:
    return float(load.concurrency or load.rate or 0.0)


def _loads(measured: Measured) -> list[Load]:
    return list(dict.fromkeys(line.load for line in measured.lines))


def _records(measured: Measured, server: int, load: Load) -> list[Record]:
    return [r for p in measured.parts if (p.server, p.load) == (server, load) for r in p.run.records]


def _name(measured: Measured, number: int) -> str:
    server = measured.servers[number]
    return f"{server.url} ({server.dialect.model})"
