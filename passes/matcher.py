"""Patterns over values: written as expressions, matched against nodes, with names bound on the way.

    x, eps = anything("x"), number("eps")
    pattern = call("rsqrt", call("add", call("mean", call("pow", cast(x), exponent=2.0)), eps))

Commutative ops match either way round. ``cast`` looks through a cast where there is one,
so that one pattern serves every dtype.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..compiler.ir.program import is_call, is_weight

Bindings = dict[str, Any]


@dataclass(frozen=True)
class Pattern:
    """Something a value may match. ``match`` gives every way it does: the names bound so far and by it."""

    def match(self, value: Any, bound: Bindings) -> Iterator[Bindings]:
        raise TypeError(f"{type(self).__name__} must define match")


@dataclass(frozen=True)
class Anything(Pattern):
    name: str
    accepts: Callable[[Any], bool]

    def match(self, value: Any, bound: Bindings) -> Iterator[Bindings]:
        if self.accepts(value) and (self.name not in bound or bound[self.name] == value):
            yield bound | {self.name: value}


@dataclass(frozen=True)
class Number(Pattern):
    """A constant, within a relative 1e-6 (constants are written in decimals, and pass through float32)."""

    value: float

    def match(self, value: Any, bound: Bindings) -> Iterator[Bindings]:
        if isinstance(value, int | float) and abs(value - self.value) <= 1e-6 * abs(self.value):
            yield bound


@dataclass(frozen=True)
class Call(Pattern):
    names: tuple[str, ...]
    operands: tuple[Pattern, ...]
    attributes: tuple[tuple[str, Any], ...]
    binds: str | None = None

    def match(self, value: Any, bound: Bindings) -> Iterator[Bindings]:
        if not is_call(value, *self.names) or any(value.kwargs.get(k) != v for k, v in self.attributes):
            return
        if len(value.args) != len(self.operands):
            return
        if self.binds:
            bound = bound | {self.binds: value}
        yield from self._operands(0, value.args, bound)
        if value.target.traits.commutative:
            yield from self._operands(0, value.args[::-1], bound)

    def _operands(self, position: int, values: tuple[Any, ...], bound: Bindings) -> Iterator[Bindings]:
        if position == len(values):
            yield bound
            return
        for found in self.operands[position].match(values[position], bound):
            yield from self._operands(position + 1, values, found)


@dataclass(frozen=True)
class Through(Pattern):
    """``inner`` behind any number of the named calls, none included. The value furthest behind them is tried first."""

    names: tuple[str, ...]
    inner: Pattern

    def match(self, value: Any, bound: Bindings) -> Iterator[Bindings]:
        behind = [value]
        while is_call(behind[-1], *self.names):
            behind.append(behind[-1].args[0])
        for candidate in reversed(behind):
            yield from self.inner.match(candidate, bound)


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
    """What ``pattern`` binds at ``node`` in the first way that it matches, or None."""
    return next(pattern.match(node, {}), None)


def look_through(node: Any, *names: str) -> Any:
    """The value behind any number of the named calls."""
    while is_call(node, *names):
        node = node.args[0]
    return node
