"""Records with known times."""

from collections.abc import Sequence
from typing import Any

from xllmc.bench.serve.records import ClientLoad, Failure, Record, Run

IDLE = ClientLoad(0.1, (0.0,) * 100)


def record(
    index: int = 0, at: float = 0.0, ttft: float = 0.1, gap: float = 0.02, tokens: int = 5, **given: Any
) -> Record:
    """A request that completed, a token in a chunk."""
    chunks = tuple(at + ttft + gap * i for i in range(tokens))
    values = {
        "sent": at,
        "chunks": chunks,
        "ended": chunks[-1],
        "finished": chunks[-1],
        "prompt_tokens": 10,
        "output_tokens": tokens,
    }
    return Record(index=index, scheduled=at, **(values | {"asked_tokens": tokens} | given))


def failed(index: int, kind: str, at: float = 0.0) -> Record:
    return Record(index, at, at, at + 0.01, (), 5, failure=Failure(kind, f"a {kind}"))


def run_of(records: Sequence[Record], client: ClientLoad = IDLE) -> Run:
    return Run(tuple(records), client)
