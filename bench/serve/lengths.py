"""Distributions of lengths in tokens, as written on the command line."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...runtime.artifact.errors import OptionError

LONGEST = 10_000_000
_FORMS = "N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA[:MOST]"


@dataclass(frozen=True)
class Lengths:
    """``fixed``: low. ``uniform``: low to high, both included. ``lognormal``: of median low, at most high."""

    kind: Literal["fixed", "uniform", "lognormal"]
    low: int
    high: int
    sigma: float = 0.0
    """Of the logarithm."""

    def draw(self, count: int, random: np.random.Generator) -> list[int]:
        """``count`` lengths, each at least 1."""
        if self.kind == "lognormal":
            drawn = np.minimum(random.lognormal(math.log(self.low), self.sigma, count), self.high)
            return np.maximum(np.rint(drawn), 1).astype(int).tolist()
        return random.integers(self.low, self.high, count, endpoint=True).tolist()

    def __str__(self) -> str:
        if self.kind == "fixed":
            return str(self.low)
        if self.kind == "uniform":
            return f"uniform:{self.low}:{self.high}"
        return f"lognormal:{self.low}:{self.sigma:g}" + (f":{self.high}" if self.high < LONGEST else "")


def parse_lengths(text: str, option: str) -> Lengths:
    """Raises OptionError, naming ``option``."""
    kind, *numbers = text.split(":") if ":" in text else ("fixed", text)
    try:
        if kind == "fixed" and len(numbers) == 1:
            found = Lengths("fixed", int(numbers[0]), int(numbers[0]))
        elif kind == "uniform" and len(numbers) == 2:
            found = Lengths("uniform", int(numbers[0]), int(numbers[1]))
        elif kind == "lognormal" and len(numbers) in (2, 3):
            most = int(numbers[2]) if len(numbers) == 3 else LONGEST
            found = Lengths("lognormal", int(numbers[0]), most, float(numbers[1]))
        else:
            raise OptionError(f"{option} must be {_FORMS}, got {text!r}")
    except ValueError as problem:
        raise OptionError(f"{option} must be {_FORMS} with numbers of tokens, got {text!r}") from problem
    if not 1 <= found.low <= found.high <= LONGEST or not 0 <= found.sigma < 10:
        raise OptionError(f"{option} must have lengths from 1 to {LONGEST}, the lower first, got {text!r}")
    return found
