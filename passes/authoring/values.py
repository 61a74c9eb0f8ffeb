"""Graphs written as expressions: ``ops.rms_norm(x + residual, w, eps=eps)``.

A ``Value`` stands for a value of a pattern, of a replacement, or of an example. What an expression does with it is up
to the ``Builder`` that made it: a pattern is remembered, a replacement is typed and later written into a graph.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ...compiler.ir.dims import Size
from ...compiler.ir.program import Weight
from ...compiler.ir.types import TensorType
from ...compiler.ops import OPS


class Builder(Protocol):
    """What calls of ops on its values become."""

    def call(self, op: Any, operands: tuple[Any, ...], attributes: dict[str, Any]) -> "Value":
        """A call of ``op``: a name, or (in a pattern) the parameter that chooses one."""

    def recipe(self, operation: str, weights: tuple["Value", ...], attributes: dict[str, Any]) -> "Value":
        """A weight made from weights; ValueError where the builder makes none."""

    def type_of(self, value: "Value") -> Any:
        """The value's type; TypeError where it has none yet."""

    def weight_of(self, value: "Value") -> Weight:
        """The declaration of a value that is a weight; TypeError for others."""


class Value:
    """One value. Arithmetic on it, and ``ops``, make more; ``[i]`` is one of several results."""

    __slots__ = ("builder", "handle")

    def __init__(self, builder: Builder, handle: Any) -> None:
        self.builder = builder
        self.handle = handle

    @property
    def type(self) -> Any:
        return self.builder.type_of(self)

    @property
    def shape(self) -> tuple[Size, ...]:
        kind = self.type
        if not isinstance(kind, TensorType):
            raise TypeError(f"only a tensor has a shape, this is {kind}")
        return kind.shape

    @property
    def dtype(self) -> str:
        return str(self.type.dtype)

    @property
    def weight(self) -> Weight:
        return self.builder.weight_of(self)

    def __add__(self, other: "Value | float") -> "Value":
        return ops.add(self, other)

    def __radd__(self, other: float) -> "Value":
        return ops.add(self, other)

    def __sub__(self, other: "Value | float") -> "Value":
        return ops.sub(self, other)

    def __mul__(self, other: "Value | float") -> "Value":
        return ops.mul(self, other)

    def __rmul__(self, other: float) -> "Value":
        return ops.mul(self, other)

    def __truediv__(self, other: "Value | float") -> "Value":
        return ops.div(self, other)

    def __neg__(self) -> "Value":
        return ops.neg(self)

    def __getitem__(self, index: int) -> "Value":
        return ops.get(self, index=index)

    def __iter__(self) -> Iterator["Value"]:
        raise TypeError("results are taken by index, both[0] and both[1]; a value cannot be unpacked")


class Ops:
    """Every registered op as a function on values: ``ops.add(x, y)``, or ``ops[name](x)`` for a name in a variable."""

    def __getattr__(self, name: str) -> Callable[..., Value]:
        if name not in OPS:
            raise AttributeError(f"there is no op {name!r}; known: {', '.join(sorted(OPS))}")
        return self[name]

    def __getitem__(self, name: Any) -> Callable[..., Value]:
        def call(*operands: Any, **attributes: Any) -> Value:
            return builder_of(operands, name).call(name, operands, attributes)

        return call


class Recipes:
    """Every weight recipe as a function on weights: ``recipes.concat(q, k, axis=0)`` is a weight made of two.

    Its name comes from the module and the parts' names. See ``xllmc.runtime.artifact.recipe`` for the operations.
    """

    def __getattr__(self, name: str) -> Callable[..., Value]:
        def call(*weights: Value, **attributes: Any) -> Value:
            return builder_of(weights, name).recipe(name, weights, attributes)

        return call


def builder_of(operands: tuple[Any, ...], name: object) -> Builder:
    for operand in operands:
        if isinstance(operand, Value):
            return operand.builder
    raise TypeError(f"{name} requires a value among its operands, got {', '.join(map(repr, operands)) or 'none'}")


ops = Ops()
recipes = Recipes()
