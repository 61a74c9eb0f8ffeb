"""Servers against the first of them, load by load."""

from collections.abc import Callable
from typing import NamedTuple

from .figures import Distribution, Figures
from .session import Line


def _median(of: Callable[[Figures], Distribution | None]) -> Callable[[Figures], float | None]:
    def value(figures: Figures) -> float | None:
        found = of(figures)
        return None if found is None else found.p50

    return value


COMPARED: dict[str, Callable[[Figures], float | None]] = {
    "ttft": _median(lambda f: f.ttft),
    "tpot": _median(lambda f: f.tpot),
    "itl": _median(lambda f: f.itl),
    "e2e": _median(lambda f: f.e2e),
    "output_tokens_per_s": lambda f: f.output_tokens_per_s,
    "goodput": lambda f: f.goodput,
}
"""Latencies by their medians: a ratio under 1 is quicker. Rates: above 1 is more."""


class Ratio(NamedTuple):
    """One server's figure over the first server's at the same load."""

    server: int
    load: str
    metric: str
    ratio: float
    low: float
    """Of the rounds, each against the first server's in the same round."""
    high: float
    client_bound: bool
    """One of the two figures is the client's own limit: the ratio says nothing of the servers."""


def ratios(lines: tuple[Line, ...]) -> tuple[Ratio, ...]:
    """Of all servers but the first, where both have a figure."""
    found = []
    first = {line.load: line for line in lines if line.server == 0}
    for line in lines:
        against = first.get(line.load)
        if line.server == 0 or against is None:
            continue
        for metric, value in COMPARED.items():
            whole = _ratio(value(line.figures), value(against.figures))
            rounds = [
                ratio
                for ours, theirs in zip(line.by_round, against.by_round, strict=False)
                if (ratio := _ratio(value(ours), value(theirs))) is not None
            ]
            if whole is not None and rounds:
                bound = bool(line.figures.client.bottleneck or against.figures.client.bottleneck)
                found.append(Ratio(line.server, str(line.load), metric, whole, min(rounds), max(rounds), bound))
    return tuple(found)


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None
