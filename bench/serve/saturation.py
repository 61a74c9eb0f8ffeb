"""Whether a server keeps up with an open loop: under a load above its capacity, requests take ever longer."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .records import Record

RAMP = 1 / 3
"""Of the arrivals' time: a server that was idle fills up first, which is no growth."""
FEWEST = 10
TOLERATED = 0.1


class Growth(NamedTuple):
    """Seconds that a request takes longer for each second that it arrives later, and the standard error of that. A
    server's queue grows by load over capacity, less 1.
    """

    slope: float
    error: float

    @property
    def beyond_doubt(self) -> bool:
        """More than tolerated, by two standard errors."""
        return self.slope - 2 * self.error > TOLERATED


def growth(records: Sequence[Record]) -> Growth | None:
    """By least squares over what completed, beside what each output token takes: an uneven mix of long and short
    outputs is no growth. None where too few completed.
    """
    last = max((record.scheduled for record in records), default=0.0)
    found = [(r.scheduled, r.tokens, r.e2e) for r in records if r.failure is None and r.scheduled >= RAMP * last]
    if len(found) < FEWEST:
        return None
    times, tokens, seconds = np.array(found, dtype=np.float64).T
    if np.ptp(times) == 0:
        return None
    columns = [np.ones_like(times), times - times.mean(), tokens - tokens.mean()]
    inputs = np.stack(columns if np.ptp(tokens) else columns[:2], axis=1)
    inverse = np.linalg.pinv(inputs.T @ inputs)
    fitted = inverse @ inputs.T @ seconds
    variance = np.square(seconds - inputs @ fitted).sum() / (len(found) - inputs.shape[1])
    return Growth(float(fitted[1]), math.sqrt(max(variance * inverse[1, 1], 0.0)))


def typical_growth(growths: Sequence[Growth]) -> Growth | None:
    """Their mean, and its error; None for none."""
    if not growths:
        return None
    slopes, errors = np.array(growths).T
    return Growth(float(slopes.mean()), float(np.sqrt(np.square(errors).sum()) / len(growths)))
