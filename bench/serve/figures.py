"""Figures of a line of the report, from the records of its requests."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .loads import Load
from .records import UNFINISHED, Record, Run
from .saturation import Growth, growth, typical_growth
from .slo import Objective, met

PERCENTILES = (50, 90, 95, 99)
SATURATED_REFUSALS = 0.01
CLIENT_SHARE = 0.2
"""Of what was measured, at the same percentile: the client may be so late."""
CLIENT_LEAST, CLIENT_LEAST_TYPICAL = 0.005, 0.001
"""Seconds that the client may always be late: one time in a hundred, and usually."""
CLIENT_CPU = 0.8


class Distribution(NamedTuple):
    """Of ``n`` values, in their own unit."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True)
class ErrorCount:
    """Failures of one kind, and the message of the first."""

    count: int
    example: str


class ClientFigures(NamedTuple):
    """Whether the client could measure what it measured."""

    lag: Distribution | None
    """Seconds from the scheduled arrival to sending."""
    stall: Distribution | None
    """Seconds by which regular wake-ups came too late."""
    cpu_share: float
    """Of one core, which is all that the client can use."""
    bottleneck: tuple[str, ...]
    """Why latencies are the client's own, as sentences; empty: they are the server's."""


class PrefixFigures(NamedTuple):
    """What a shared prefix brought: time to first token where a group's prefix was new, and where it was not."""

    first_ttft: Distribution | None
    later_ttft: Distribution | None


@dataclass(frozen=True)
class Figures:
    """One line. Latencies are seconds of requests that completed, from their scheduled arrival unless they say else."""

    requests: int
    completed: int
    unfinished: int
    """Cut off by the end of the run."""
    errors: dict[str, ErrorCount]
    """By kind: a status, or what happened."""
    retries: int
    seconds: float
    offered_rate: float | None
    """Requests a second; None in a closed loop."""
    request_rate: float
    """Requests that completed in a second."""
    prompt_tokens_per_s: float | None
    output_tokens_per_s: float
    prompt_tokens: Distribution | None
    output_tokens: Distribution | None
    short_outputs: int
    """Requests that completed with fewer tokens than asked for."""
    cached_share: float | None
    """Of the prompts' tokens, as the server counts what it found in its cache."""
    ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    """Between chunks; see ``tokens_per_chunk``."""
    e2e: Distribution | None
    ttft_from_sending: Distribution | None
    e2e_from_sending: Distribution | None
    goodput: float | None
    """Requests a second that met all objectives; None: there are none."""
    attainment: float | None
    """Share of the requests that met all objectives."""
    tokens_counted_by: str
    """``usage``: the server. ``chunks``: it did not say for every request, and a chunk may hold several tokens."""
    tokens_per_chunk: float | None
    """Above 1, ``itl`` is not between tokens."""
    chunks_together: float | None
    """Share of the chunks that came in one piece with the one before; ``itl`` is 0 between them."""
    queue_growth: Growth | None
    """None in a closed loop, and where too few requests completed."""
    saturated: bool
    """The server could not keep up: requests take ever longer, or are refused."""
    prefix: PrefixFigures | None
    client: ClientFigures


def distribution(values: Iterable[float | None]) -> Distribution | None:
    """None for no values; None among them are left out. Percentiles interpolate."""
    found = np.array([value for value in values if value is not None], dtype=np.float64)
    if not found.size:
        return None
    return Distribution(len(found), float(found.mean()), *(float(p) for p in np.percentile(found, PERCENTILES)))


def figures(runs: Sequence[Run], load: Load, objectives: Sequence[Objective]) -> Figures:
    """Of all rounds of one load on one server. Rates are over the time of all runs."""
    records = [record for run in runs for record in run.records]
    done = [record for record in records if record.failure is None]
    seconds = sum(run.seconds for run in runs)
    errors, refused = _errors(records), _refused(records)
    growths = [] if load.closed else [found for run in runs if (found := growth(run.records)) is not None]
    queue_growth = typical_growth(growths)
    good = sum(met(record, objectives) for record in records)
    ended = [record for record in records if record.failure is None or record.failure.kind != UNFINISHED]
    ttft = distribution(r.ttft for r in done)
    itl = distribution(gap for r in done for gap in r.gaps)
    counted = all(r.output_tokens is not None for r in done)
    chunks = sum(len(r.chunks) for r in done)
    return Figures(
        requests=len(records),
        completed=len(done),
        unfinished=len(records) - len(ended),
        errors=errors,
        retries=sum(r.attempts - 1 for r in records),
        seconds=seconds,
        offered_rate=_trace_rate(runs) if load.rate is None and not load.closed else load.rate,
        request_rate=_per_second(len(done), seconds),
        prompt_tokens_per_s=(
            _per_second(sum(r.prompt_tokens or 0 for r in done), seconds)
            if all(r.prompt_tokens is not None for r in done)
            else None
        ),
        output_tokens_per_s=_per_second(sum(r.tokens for r in done), seconds),
        prompt_tokens=distribution(r.prompt_tokens for r in done),
        output_tokens=distribution(r.tokens for r in done),
        short_outputs=sum(r.tokens < r.asked_tokens for r in done),
        cached_share=_cached_share(done),
        ttft=ttft,
        tpot=distribution(r.tpot for r in done),
        itl=itl,
        e2e=distribution(r.e2e for r in done),
        ttft_from_sending=distribution(r.ttft_from_sending for r in done),
        e2e_from_sending=distribution(r.e2e_from_sending for r in done),
        goodput=_per_second(good, seconds) if objectives else None,
        attainment=good / len(ended) if objectives and ended else None,
        tokens_counted_by="usage" if counted else "chunks",
        tokens_per_chunk=sum(r.tokens for r in done) / chunks if counted and chunks else None,
        chunks_together=sum(gap == 0 for r in done for gap in r.gaps) / chunks if chunks else None,
        queue_growth=queue_growth,
        saturated=not load.closed
        and (
            (queue_growth is not None and queue_growth.beyond_doubt)
            or refused > SATURATED_REFUSALS * max(len(records), 1)
        ),
        prefix=_prefix(done),
        client=client_figures(runs, ttft, itl),
    )


def client_figures(runs: Sequence[Run], ttft: Distribution | None, itl: Distribution | None) -> ClientFigures:
    """What was the client's own part. It is the bottleneck where it was late by a good part of what it measured, or
    had hardly time left.
    """
    lag = distribution(record.lag for run in runs for record in run.records)
    stall = distribution(stall for run in runs for stall in run.client.stalls)
    seconds = sum(run.seconds for run in runs)
    cpu = sum(run.client.cpu_share * run.seconds for run in runs) / seconds if seconds else 0.0
    compared = (
        ("requests were sent", "p50", lag, "TTFT", ttft, CLIENT_LEAST_TYPICAL),
        ("requests were sent", "p99", lag, "TTFT", ttft, CLIENT_LEAST),
        ("the client woke", "p99", stall, "ITL" if itl else "TTFT", itl or ttft, CLIENT_LEAST),
    )
    reasons = []
    for what, percentile, late, name, measured, least in compared:
        ours, whole = (getattr(one, percentile) if one else 0.0 for one in (late, measured))
        if ours > max(least, CLIENT_SHARE * whole):
            reasons.append(f"{what} {1e3 * ours:.1f} ms late ({percentile}), where {name} is {1e3 * whole:.1f} ms")
    if cpu > CLIENT_CPU:
        reasons.append(f"the client used {cpu:.0%} of the one core that it can use")
    return ClientFigures(lag, stall, cpu, tuple(reasons))


def _errors(records: Sequence[Record]) -> dict[str, ErrorCount]:
    failures = [r.failure for r in records if r.failure is not None and r.failure.kind != UNFINISHED]
    examples = {failure.kind: failure.message for failure in reversed(failures)}
    return {k: ErrorCount(n, examples[k]) for k, n in Counter(failure.kind for failure in failures).most_common()}


def _refused(records: Sequence[Record]) -> int:
    return sum(r.failure is not None and r.failure.kind in ("429", "503") for r in records)


def _trace_rate(runs: Sequence[Run]) -> float | None:
    """Intervals between arrivals in a second."""
    times = [[record.scheduled for record in run.records] for run in runs if run.records]
    spans = sum(max(one) - min(one) for one in times)
    return (sum(len(one) for one in times) - len(times)) / spans if spans > 0 else None


def _cached_share(done: Sequence[Record]) -> float | None:
    said = [(r.cached_tokens, r.prompt_tokens) for r in done if r.cached_tokens is not None and r.prompt_tokens]
    return sum(cached for cached, _ in said) / sum(prompt for _, prompt in said) if said else None


def _prefix(done: Sequence[Record]) -> PrefixFigures | None:
    grouped = [record for record in done if record.group is not None]
    if not grouped:
        return None
    first, later = ([r.ttft for r in grouped if r.first_of_group is wanted] for wanted in (True, False))
    return PrefixFigures(distribution(first), distribution(later))


def _per_second(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
