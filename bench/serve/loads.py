"""How hard a server is driven: one line of the report each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...runtime.artifact.errors import OptionError


@dataclass(frozen=True)
class Load:
    """Open loop at a rate, open loop along a trace (neither given), or closed loop at a concurrency."""

    rate: float | None = None
    """Requests in a second, on average."""
    concurrency: int | None = None
    """Requests in flight: the next goes when one is done, so a slow server is asked less."""

    @property
    def closed(self) -> bool:
        return self.concurrency is not None

    def __str__(self) -> str:
        if self.concurrency is not None:
            return f"closed, {self.concurrency}"
        return "trace" if self.rate is None else f"{self.rate:g}/s"


def choose_loads(rates: Sequence[float], concurrencies: Sequence[int], trace: bool) -> tuple[Load, ...]:
    """The loads asked for, each once, in their order. Raises OptionError where not exactly one kind is given."""
    if sum((bool(rates), bool(concurrencies), trace)) != 1:
        raise OptionError(
            "a load must be one of --rate (open loop; several for a sweep), --trace (open loop) and --concurrency "
            "(closed loop, which hides queueing); give one"
        )
    if bad := [rate for rate in rates if not 0 < rate < math.inf]:
        raise OptionError(f"--rate must be above 0 requests a second, got {bad[0]:g}")
    if bad := [number for number in concurrencies if number < 1]:
        raise OptionError(f"--concurrency must be at least 1, got {bad[0]}")
    if trace:
        return (Load(),)
    given = [*(Load(rate=rate) for rate in rates), *(Load(concurrency=number) for number in concurrencies)]
    return tuple(dict.fromkeys(given))
