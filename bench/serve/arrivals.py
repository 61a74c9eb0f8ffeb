"""When requests arrive in an open loop: without regard to how the server does."""

from typing import Literal

import numpy as np

Arrivals = Literal["poisson", "gamma", "constant"]


def arrival_times(
    process: Arrivals, rate: float, count: int, burstiness: float, random: np.random.Generator
) -> np.ndarray:
    """``count`` increasing times in seconds, from 0 to ``count / rate``: the load is the one asked for, no draw of it.
    (A Poisson process of which the number of arrivals is known stays one.)

    ``burstiness`` is the shape of ``gamma``'s intervals: 1 gives a Poisson process, less comes in bursts, more is
    smoother.
    One state of ``random`` gives the same pattern at every rate, stretched.
    """
    if process == "constant":
        return np.arange(count) / rate
    shape = burstiness if process == "gamma" else 1.0
    intervals = np.cumsum(random.gamma(shape, 1 / shape, count + 1))
    return intervals[:-1] / intervals[-1] * (count / rate)
