"""What an op is: its meaning (an eager reference), its types, and the traits that passes rely on."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .polynomial import Polynomial
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
    """What one execution moves and computes, as polynomials of a step's sizes.

    The mean number of positions that a query attends to is ``C``, and ``C@256`` where a window of 256 limits it: these
    are data, not shapes, and only the cost of attention names them.
    """

    streamed: Polynomial
    """Bytes of weights and states: they come from where the last step left them, mostly main memory."""
    read: Polynomial
    """Bytes of values that the same step made: they come from a cache."""
    write: Polynomial
    """Bytes."""
    flops: Polynomial
    """Operations on elements; a division, a root or an exponential counts as the several that it takes."""
    tasks: Polynomial
    """Pieces that threads may share."""


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
    kernels: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    """By target: what writes a kernel for one call of the op, given what that target's lowering gives."""

    @property
    def __name__(self) -> str:  # FX prints targets by this name
        return self.name

    def __repr__(self) -> str:
        return f"op.{self.name}"

    def __call__(self, *operands: Any, **attributes: Any) -> Any:
        return self.reference(*operands, **attributes)

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Attribute names to defaults; ``inspect.Parameter.empty`` where there is none."""
        try:
            parameters = inspect.signature(self.reference).parameters.values()
        except ValueError:  # torch's own functions have no signature, and as ops no attributes
            return {}
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def attribute(self, node_attributes: Mapping[str, Any], name: str) -> Any:
        """The value that a call with ``node_attributes`` gives the attribute: its own, or the default."""
        return node_attributes.get(name, self.attributes.get(name))

    def fake(self, function: Callable[..., ValueType]) -> Callable[..., ValueType]:
        """Register the type rule: from the types of operands to the type of the result; raises TypeError."""
        self.infer = function
        return function

    def cost(self, function: Callable[..., Cost]) -> Callable[..., Cost]:
        """Register the cost rule: from the types of operands to bytes and operations."""
        self.cost_model = function
        return function

    def kernel(self, target: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        """Register how ``target`` computes the op: ``@my_op.kernel("cpu")`` (see ``codegen/cpu/kernel.py``)."""

        def register(write: Callable[[Any], None]) -> Callable[[Any], None]:
            if target in self.kernels:
                raise ValueError(f"op {self.name} has two kernels for {target}")
            self.kernels[target] = write
            return write

        return register

    def result_type(self, *operands: Any, **attributes: Any) -> ValueType:
        if self.infer is None:
            raise TypeError(f"op {self.name} has no type rule; register one with @{self.name}.fake")
        try:
            return self.infer(*operands, **attributes)
        except TypeError:
            raise
        except Exception as error:  # ops may be foreign code
            raise TypeError(f"the type rule of op {self.name} failed: {type(error).__name__}: {error}") from error
