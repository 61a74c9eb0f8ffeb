"""Sizes of axes: a whole number, or a whole multiple of symbols known only at a step (``T``, ``4*T``)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Dim:
    """``factor`` times the product of ``symbols`` (sorted, at least one)."""

    factor: int
    symbols: tuple[str, ...]

    def __str__(self) -> str:
        names = "*".join(self.symbols)
        return names if self.factor == 1 else f"{self.factor}*{names}"

    def __mul__(self, other: "Size") -> "Dim":
        if isinstance(other, Dim):
            return Dim(self.factor * other.factor, tuple(sorted(self.symbols + other.symbols)))
        return Dim(self.factor * other, self.symbols)

    __rmul__ = __mul__


Size = int | Dim


def symbol(name: str) -> Dim:
    return Dim(1, (name,))


def product(sizes: Iterable[Size]) -> Size:
    return prod(sizes)


def divide(total: Size, part: Size) -> Size | None:
    """``total / part`` where it is a size, else None."""
    factor = total.factor if isinstance(total, Dim) else total
    symbols = list(total.symbols if isinstance(total, Dim) else ())
    divisor = part.factor if isinstance(part, Dim) else part
    for name in part.symbols if isinstance(part, Dim) else ():
        if name not in symbols:
            return None
        symbols.remove(name)
    if divisor == 0 or factor % divisor:
        return None
    return Dim(factor // divisor, tuple(symbols)) if symbols else factor // divisor


def whole(size: Size) -> int:
    """The size as a number; ValueError where it follows a symbol."""
    if isinstance(size, Dim):
        raise ValueError(f"a fixed size is required, got {size}")
    return size


def evaluate(size: Size, values: dict[str, int]) -> int:
    if isinstance(size, int):
        return size
    return size.factor * prod(values[name] for name in size.symbols)


def parse_size(text: str) -> Size:
    """The size that ``str`` printed."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    parts = text.split("*")
    factor = int(parts.pop(0)) if parts[0].isdigit() else 1
    return Dim(factor, tuple(sorted(parts)))
