"""What an op is: its meaning (an eager reference), its types, and the traits that passes rely on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .types import ValueType


@dataclass(frozen=True)
class Traits:
    pointwise: bool = False
    """Every output element depends on the elements of the operands at its own (broadcast) place."""
    rowwise: bool = False
    """Row i of the result (of the first axis) depends only on row i of the operands whose first axis is the same. Only
    of values with at least two axes: of one axis, rows are elements."""
    reduction: bool = False
    """Joins the elements of the last axis, which is kept with size 1."""
    commutative: bool = False
    """Its two operands may change places."""
    same_bits: bool = False
    """The reference gives an element the same bits wherever it stands. Others sum in an order of torch's choosing, or
    take another polynomial at a vector's end, so that even an exact rewrite may move a last bit."""
    view: bool = False
    """The result has its operand's bytes under another shape."""
    mutates: int | None = None
    """The position of the state operand that it changes; the changed state is (the last) part of its result."""


@dataclass(frozen=True)
class Cost:
    """What one execution moves and computes, as sizes evaluated at a step (bytes, bytes, operations)."""

    read: float
    write: float
    flops: float


@dataclass(eq=False)
class Op:
    """A registered operation. ``reference`` is its meaning: eager, on torch tensors.

    Operands are positional (values, immediates or None); attributes are keyword-only and constant.
    """

    name: str
    reference: Callable[..., Any]
    traits: Traits
    tolerance: dict[str, float]
    """Largest relative error, by result dtype, that a kernel of this op may show against the reference."""
    infer: Callable[..., ValueType] | None = None
    cost_model: Callable[..., Cost] | None = None
    doc: str = field(default="")

    @property
    def __name__(self) -> str:  # FX prints targets by this name
        return self.name

    def __repr__(self) -> str:
        return f"op.{self.name}"

    def __call__(self, *operands: Any, **attributes: Any) -> Any:
        return self.reference(*operands, **attributes)

    def fake(self, function: Callable[..., ValueType]) -> Callable[..., ValueType]:
        """Register the type rule: from the types of operands to the type of the result; raises TypeError."""
        self.infer = function
        return function

    def cost(self, function: Callable[..., Cost]) -> Callable[..., Cost]:
        """Register the cost rule: from the types of operands to bytes and operations."""
        self.cost_model = function
        return function

    def result_type(self, *operands: Any, **attributes: Any) -> ValueType:
        if self.infer is None:
            raise TypeError(f"op {self.name} has no type rule; register one with @{self.name}.fake")
        return self.infer(*operands, **attributes)
