"""Values of the polynomials that say what a launch moves and computes."""

from collections.abc import Mapping
from functools import lru_cache
from math import prod

from .schema import Counts

Sizes = Mapping[str, float]
"""T tokens, S sequences, R rows of logits, B columns of the block tables, C mean positions that a query attends to.

They may name a product too: ``C*S`` where sequences of one step differ in what they attend to.
"""


def evaluate(counts: Counts, sizes: Sizes) -> float:
    """A polynomial's value in a step of these sizes."""
    return sum(coefficient * monomial(name, sizes) for name, coefficient in counts.items())


def monomial(name: str, sizes: Sizes) -> float:
    """What ``sizes`` says of the product itself, or else the product of its symbols' sizes."""
    if name in sizes:
        return sizes[name]
    return prod(size_of(symbol, sizes) for symbol in symbols(name))


def size_of(symbol: str, sizes: Sizes) -> float:
    """A symbol's size. ``C@256`` is what ``sizes`` says, or else the smaller of C and 256."""
    if symbol in sizes or "@" not in symbol:
        return sizes[symbol]
    name, _, window = symbol.partition("@")
    return min(sizes[name], int(window))


@lru_cache(maxsize=1024)
def symbols(monomial: str) -> tuple[str, ...]:
    """The factors of a monomial; none of ``1``."""
    return () if monomial == "1" else tuple(monomial.split("*"))
