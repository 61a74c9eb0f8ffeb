"""Whole-number polynomials of a step's sizes: what a call moves and computes, before the step is known."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from ...runtime.artifact.counts import Sizes, evaluate
from ...runtime.artifact.schema import Counts
from .dims import Size

Monomial = tuple[str, ...]
"""Symbols, sorted, one for each factor; empty for the constant."""


@dataclass(frozen=True)
class Polynomial:
    """``terms``: monomials with their coefficients, none of them zero, sorted."""

    terms: tuple[tuple[Monomial, int], ...] = ()

    @classmethod
    def of(cls, value: "Quantity") -> "Polynomial":
        """The polynomial that a size or a number is. The size ``S+1`` (of ``query_starts``) is ``S`` and 1."""
        if isinstance(value, Polynomial):
            return value
        if isinstance(value, int):
            return cls._collect([((), value)])
        factors = [cls._collect([((name,), 1)]) for name in value.symbols if name != "S+1"]
        factors += [cls._collect([(("S",), 1), ((), 1)])] * value.symbols.count("S+1")
        return prod(factors, start=cls.of(value.factor))

    @classmethod
    def _collect(cls, terms: Iterable[tuple[Monomial, int]]) -> "Polynomial":
        total: dict[Monomial, int] = {}
        for monomial, coefficient in terms:
            total[monomial] = total.get(monomial, 0) + coefficient
        return cls(tuple(sorted((m, c) for m, c in total.items() if c)))

    def __add__(self, other: "Quantity") -> "Polynomial":
        return self._collect([*self.terms, *Polynomial.of(other).terms])

    def __mul__(self, other: "Quantity") -> "Polynomial":
        right = Polynomial.of(other).terms
        return self._collect([(tuple(sorted(a + b)), m * n) for a, m in self.terms for b, n in right])

    __radd__ = __add__
    __rmul__ = __mul__

    def at(self, sizes: Sizes) -> float:
        """The value in a step of these sizes."""
        return evaluate(self.named(), sizes)

    def named(self) -> Counts:
        """Coefficients by the monomial's name: ``1``, ``T``, ``C*T``."""
        return {"*".join(m) or "1": c for m, c in self.terms}


Quantity = Polynomial | Size
