"""Rates of one kind of kernel from timed launches: least squares on the logarithm of predicted over measured.

The parameters are positive, so their logarithms are sought (Levenberg-Marquardt with numeric derivatives). Large
residuals count logarithmically (Cauchy's loss), because a machine that is also used for other things makes outliers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ..runtime.cost import Parts, combined

SCALES = (1.0, 0.15)
"""Relative errors beyond which a residual counts as an outlier: generous to find the valley, then strict."""
PRIOR = 0.02
"""How strongly a parameter is held to its start where the samples do not tell it: a share of one sample's weight."""


class Timed(NamedTuple):
    parts: Parts
    seconds: float


def fit_rates(samples: Sequence[Timed], launch: float) -> tuple[float, float, float, float]:
    """Overhead in seconds, and the shares streaming, handling and arithmetic of ``runtime.machine.Rates``.

    ``launch``: seconds of a launch that does nothing, from which the search starts.
    """
    parts = np.array([s.parts for s in samples])
    measured = np.log([s.seconds for s in samples])
    start = np.log([launch, 1 / 0.9, 1 / 0.5, 1 / 0.5])

    def residuals(x: np.ndarray, scale: float) -> np.ndarray:
        overhead, *slowness = np.exp(np.clip(x, -60, 60))
        streaming, core = parts[:, 0] * slowness[0], parts[:, 1] * slowness[1] + parts[:, 2] * slowness[2]
        predicted = combined(overhead, streaming, core, parts[:, 3])
        return np.concatenate([tempered(np.log(predicted) - measured, scale), PRIOR * (x - start)])

    x = start
    for scale in SCALES:
        x = least_squares(partial(residuals, scale=scale), x)
    overhead, *slowness = np.exp(x)
    streaming, handling, arithmetic = (1 / s for s in slowness)
    return float(overhead), float(streaming), float(handling), float(arithmetic)


def tempered(residuals: np.ndarray, scale: float) -> np.ndarray:
    """Residuals whose squares are Cauchy's loss of the given ones."""
    shares = residuals / scale
    return np.sign(shares) * scale * np.sqrt(np.log1p(shares**2))


def least_squares(residuals: Callable[[np.ndarray], np.ndarray], start: np.ndarray, steps: int = 200) -> np.ndarray:
    """Where the sum of squared residuals is least, from ``start`` downhill."""
    x, damping = start.copy(), 1e-2
    r = residuals(x)
    for _ in range(steps):
        jacobian = np.stack([(residuals(x + 1e-5 * unit) - r) / 1e-5 for unit in np.eye(len(x))], axis=1)
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ r
        move = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), -gradient)
        trial = x + np.clip(move, -1, 1)
        tried = residuals(trial)
        if tried @ tried < r @ r:
            gained = r @ r - tried @ tried
            x, r, damping = trial, tried, damping / 3
            if gained < 1e-9 * (r @ r):
                break
        elif damping > 1e9:
            break
        else:
            damping *= 4
    return x
