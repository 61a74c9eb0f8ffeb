"""What a reader must know before believing a line of the report, in sentences."""

from collections.abc import Iterator

from .session import Line

FEW = 100


def notes(line: Line) -> Iterator[str]:
    """From the gravest on; none where there is nothing to say."""
    f = line.figures
    for reason in f.client.bottleneck:
        yield f"CLIENT-BOUND, latencies are partly the client's own: {reason}"
    for kind, error in f.errors.items():
        yield f"{error.count} of {f.requests} requests failed, {kind}: {error.example}"
    if f.unfinished:
        yield f"{f.unfinished} requests were cut off by the end of the run"
    if f.saturated:
        growth = f" (each second adds {f.queue_growth.slope:.2f} s to a request's time)" if f.queue_growth else ""
        yield f"saturated: the server cannot keep up with this load{growth}; latencies depend on how long the run is"
    if line.load.closed:
        yield "a slow server is asked less in a closed loop, so queueing does not show: compare throughput, not latency"
    if f.completed and f.tokens_counted_by == "chunks":
        yield "the server does not count tokens: chunks are counted, which may hold several; TPOT may be too large"
    elif f.tokens_per_chunk is not None and f.tokens_per_chunk > 1.05:
        yield f"a chunk holds {f.tokens_per_chunk:.2f} tokens on average: ITL is between chunks, TPOT between tokens"
    if f.chunks_together is not None and f.chunks_together > 0.05:
        yield f"{f.chunks_together:.0%} of the chunks came in one piece with the one before: ITL is 0 between them"
    if f.short_outputs:
        yield f"{f.short_outputs} of {f.completed} outputs ended before the length asked for"
    if f.cached_share and f.prefix is None and f.cached_share > 0.01:
        yield (
            f"{f.cached_share:.0%} of the prompts' tokens came from the server's prefix cache, though none share any: "
            "another --seed, or a fresh server, avoids what an earlier run left there"
        )
    if 0 < f.completed < FEW:
        yield f"{f.completed} requests completed: with under {FEW}, p99 is little but the largest value"
