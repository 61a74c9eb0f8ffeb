"""Patterns over values: written as expressions, matched against nodes, with names bound on the way.

    x, eps = anything("x"), number("eps")
    pattern = call("rsqrt", call("add", call("mean", call("pow", cast(x), exponent=2.0)), eps))

Commutative ops match either way round. ``cast`` looks through a cast where there is one,
so that one pattern serves every dtype.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..compiler.ir.program import is_call, is_weight

Bindings = dict[str, Any]


@dataclass(frozen=True)
class Pattern:
    """Something a value may match. ``match`` gives the names bound, or None."""

    def match(self, value: Any, bound: Bindings) -> Bindings | None:
        raise TypeError(f"{type(self).__name__} must define match")


@dataclass(frozen=True)
class Anything(Pattern):
    name: str
    accepts: Callable[[Any], bool]

    def match(self, value: Any, bound: Bindings) -> Bindings | None:
        if not self.accepts(value):
            return None
        if self.name in bound:
            return bound if bound[self.name] is value or bound[self.name] == value else None
        return bound | {self.name: value}


@dataclass(frozen=True)
class Number(Pattern):
    """A constant, within a relative 1e-6 (constants are written in decimals, and pass through float32)."""

    value: float

    def match(self, value: Any, bound: Bindings) -> Bindings | None:
        is_number = isinstance(value, int | float)
        return bound if is_number and abs(value - self.value) <= 1e-6 * abs(self.value) else None


@dataclass(frozen=True)
class Call(Pattern):
    names: tuple[str, ...]
    operands: tuple[Pattern, ...]
    attributes: tuple[tuple[str, Any], ...]
    binds: str | None = None

    def match(self, value: Any, bound: Bindings) -> Bindings | None:
        if not is_call(value, *self.names) or any(value.kwargs.get(k) != v for k, v in self.attributes):
            return None
        orders = [value.args]
        if value.target.traits.commutative:
            orders.append(value.args[::-1])
        for operands in orders:
            result: Bindings | None = bound | {self.binds: value} if self.binds else bound
            for pattern, operand in zip(self.operands, operands, strict=False):
                result = pattern.match(operand, result) if result is not None else None
            if result is not None and len(operands) == len(self.operands):
                return result
        return None


@dataclass(frozen=True)
class Through(Pattern):
    """``inner`` behind any number of the named calls, none included. The value furthest behind them is tried first."""

    names: tuple[str, ...]
    inner: Pattern

    def match(self, value: Any, bound: Bindings) -> Bindings | None:
        behind = [value]
        while is_call(behind[-1], *self.names):
            behind.append(behind[-1].args[0])
        for candidate in reversed(behind):
            if (found := self.inner.match(candidate, bound)) is not None:
                return found
        return None


def anything(name: str) -> Pattern:
    return Anything(name, lambda value: isinstance(value, fx.Node))


def weight(name: str) -> Pattern:
    return Anything(name, is_weight)


def number(name: str) -> Pattern:
    return Anything(name, lambda value: isinstance(value, int | float))


def constant(value: float) -> Pattern:
    return Number(value)


def call(names: str, *operands: Pattern, binds: str | None = None, **attributes: Any) -> Pattern:
    """A call of one of the named ops (``"mul|div"``), with these operands; attributes given must be equal."""
    return Call(tuple(names.split("|")), operands, tuple(attributes.items()), binds)


def cast(inner: Pattern) -> Pattern:
    return Through(("cast",), inner)


def view(inner: Pattern) -> Pattern:
    return Through(("reshape", "cast"), inner)


def match(pattern: Pattern, node: fx.Node) -> Bindings | None:
    """What ``pattern`` binds at ``node``, or None."""
    return pattern.match(node, {})


def look_through(node: Any, *names: str) -> Any:
    """The value behind any number of the named calls."""
    while is_call(node, *names):
        node = node.args[0]
    return node
