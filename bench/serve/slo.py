"""What a request must meet to count as good."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ...runtime.artifact.errors import OptionError
from .records import Record

METRICS = ("ttft", "tpot", "e2e")


class Objective(NamedTuple):
    """A metric of a request, and the seconds that it may have at most."""

    metric: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.metric} <= {self.seconds:g} s"


def parse_objectives(texts: Sequence[str]) -> tuple[Objective, ...]:
    """Each as ``ttft:0.5``. Raises OptionError."""
    found: list[Objective] = []
    for text in texts:
        metric, _, seconds = text.partition(":")
        try:
            objective = Objective(metric, float(seconds))
        except ValueError as problem:
            raise OptionError(f"--slo must be METRIC:SECONDS, as in ttft:0.5, got {text!r}") from problem
        if metric not in METRICS or not 0 < objective.seconds < math.inf:
            raise OptionError(f"--slo must be one of {', '.join(METRICS)} with seconds above 0, got {text!r}")
        if metric in (earlier.metric for earlier in found):
            raise OptionError(f"--slo must name each metric once, got {metric} again")
        found.append(objective)
    return tuple(found)


def met(record: Record, objectives: Sequence[Objective]) -> bool:
    """Whether a request completed, and within all objectives. One without a second token meets any of ``tpot``."""
    if record.failure is not None:
        return False
    return all((value := getattr(record, o.metric)) is None or value <= o.seconds for o in objectives)
