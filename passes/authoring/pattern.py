"""A pattern: what a rewrite looks for, made by running its ``pattern`` method on parameters."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...compiler.ir.op import Op
from ...compiler.ir.program import Weight
from ...compiler.ops import OPS
from .signature import MISSING, Parameter, ScalarSpec, TensorSpec, parameters_of
from .values import Value


@dataclass(frozen=True, eq=False)
class Call:
    """A call of one of some ops. Attributes that it does not mention have their defaults."""

    ops: tuple[Op, ...]
    operands: tuple["Term", ...]
    attributes: Mapping[str, Any]
    chosen: Parameter | None = None
    """The parameter that takes the op's name, where there is a choice."""

    def __str__(self) -> str:
        return " or ".join(o.name for o in self.ops) if len(self.ops) < 4 else f"one of {len(self.ops)} ops"


@dataclass(frozen=True, eq=False)
class Absentable:
    """``present``, or its first operand alone; the parameters named only by it then take their defaults."""

    present: Call
    plain: "Term"
    parameters: tuple[Parameter, ...]


Term = Parameter | Call | Absentable | float | str | None


@dataclass(frozen=True)
class Pattern:
    parameters: tuple[Parameter, ...]
    outputs: tuple[Call | Absentable, ...]
    root: Call | Absentable
    """The output from which all of the pattern is reached."""
    calls: int
    """Calls in it, optional ones included."""


class PatternBuilder:
    """Remembers calls. Values have no types: a pattern is written once, for all of them."""

    def call(self, op: Any, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Value:
        chosen = None
        if isinstance(op, Value) and isinstance(op.handle, Parameter) and isinstance(op.handle.spec, ScalarSpec):
            chosen = op.handle
            ops = tuple(OPS[name] for name in op.handle.spec.words)
        else:
            ops = (OPS[op],)
        for one in ops:
            unknown = set(attributes) - set(one.attributes)
            unsaid = [n for n, d in one.attributes.items() if d is MISSING and n not in attributes]
            if unknown or unsaid:
                raise TypeError(
                    f"a pattern of {one.name} must say {', '.join(one.attributes) or 'no attributes'}; "
                    + (f"it has no {', '.join(sorted(unknown))}" if unknown else f"{', '.join(unsaid)} is not said")
                )
        if sums := [n for n, v in attributes.items() if isinstance(v, Value) and not isinstance(v.handle, Parameter)]:
            raise TypeError(f"a pattern cannot compute attributes, got {', '.join(sums)}; relate sizes in `when`")
        tuples = {n: v for n, v in attributes.items() if isinstance(v, tuple | list)}
        if mixed := [n for n, v in tuples.items() if any(isinstance(i, Value) for i in v)]:
            raise TypeError(
                f"a pattern cannot name parts of {', '.join(mixed)}: "
                "take it whole as a parameter of kind Attribute, and look at its parts in `when`"
            )
        handles = tuple(o.handle if isinstance(o, Value) else o for o in operands)
        given = {name: v.handle if isinstance(v, Value) else v for name, v in attributes.items()}
        return Value(self, Call(ops, handles, given, chosen))

    def recipe(self, operation: str, weights: tuple[Value, ...], attributes: dict[str, Any]) -> Value:
        raise TypeError(f"a pattern reads weights; {operation} makes one, which only a replacement does")

    def type_of(self, value: Value) -> Any:
        raise TypeError("a pattern has no types or shapes: name sizes in its annotations, or look at them in `when`")

    def weight_of(self, value: Value) -> Weight:
        raise TypeError("a pattern has no weights: look at them in `when` or in the replacement")


def optional(call: Callable[..., Value], value: Value, *operands: Any, **attributes: Any) -> Value:
    """In a pattern: ``call(value, ...)``, or ``value`` as it is.

    Where it is absent, the parameters it names take their defaults (None for one that may be None), and must have
    these wherever else the pattern names them.
    """
    present = call(value, *operands, **attributes)
    if not isinstance(present.handle, Call):
        raise TypeError("optional stands in patterns only")
    named = [v for v in (*present.handle.operands[1:], *present.handle.attributes.values()) if isinstance(v, Parameter)]
    for parameter in named:
        if parameter.absent is MISSING:
            raise TypeError(
                f"parameter {parameter.name} of an optional {present.handle} requires a default, or `| None`"
            )
    return Value(present.builder, Absentable(present.handle, value.handle, tuple(named)))


def build_pattern(function: Callable[..., Any], owner: object) -> Pattern:
    """Run a pattern method on its parameters. TypeError where it is not a pattern."""
    parameters = parameters_of(function)
    builder = PatternBuilder()
    # Scalars too travel as values, so that an attribute names its parameter.
    returned = function(owner, **{p.name: Value(builder, p) for p in parameters})
    values = returned if isinstance(returned, tuple) else (returned,)
    outputs = tuple(v.handle if isinstance(v, Value) else v for v in values)
    if not outputs or not all(isinstance(o, Call | Absentable) for o in outputs):
        raise TypeError(f"{function.__qualname__} must return a call of an op, or a tuple of such")
    for output in outputs:
        reached = terms(output)
        if all(o in reached for o in outputs):
            sizes = {d for p in parameters if isinstance(p.spec, TensorSpec) for d in p.spec.dims}
            missing = [p.name for p in parameters if p not in reached and p.name not in sizes]
            if missing:
                raise TypeError(f"{function.__qualname__} does not use {', '.join(missing)}")
            returned = {*outputs, *(o.operands[0] for o in outputs if isinstance(o, Call) and o.operands)}
            for call in (t for t in reached if isinstance(t, Call) and t not in returned):
                if any(op.traits.mutates is not None for op in call.ops):
                    raise TypeError(f"{function.__qualname__}: {call} changes a state; return the changed state too")
            return Pattern(parameters, outputs, output, sum(isinstance(t, Call) for t in reached))
    raise TypeError(
        f"{function.__qualname__}: one of its outputs must be computed from all others; return that one too, "
        "or, of an op with several results, the call itself"
    )


def terms(root: Any) -> list[Any]:
    """Every parameter and call that ``root`` is made of, itself included."""
    found: dict[Any, None] = {}
    stack = [root]
    while stack:
        term = stack.pop()
        if not isinstance(term, Parameter | Call | Absentable) or term in found:
            continue
        found[term] = None
        if isinstance(term, Call):
            stack += [*term.operands, *term.attributes.values(), term.chosen]
        elif isinstance(term, Absentable):
            stack += [term.present, term.plain]
    return list(found)


def argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(list(inspect.signature(function).parameters)[1:])
