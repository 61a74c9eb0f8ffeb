"""Matching a pattern against a graph, with every way it can match, and the reason where it does not.

The matcher deals with what an author should not have to think of: operands of commutative ops in either order, casts
(and views, where a rewrite says so) standing anywhere between, parts that may be absent, and several outputs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isclose
from typing import Any

from torch import fx

from ...compiler.ir.op import Op
from ...compiler.ir.program import is_call, is_weight, type_of
from ...compiler.ir.text import print_value
from ...compiler.ir.types import PagedType, TensorType
from .pattern import Absentable, Call, Pattern, Term
from .signature import Parameter, ScalarSpec, StateSpec, TensorSpec

Bound = dict[Any, Any]
"""Calls of the pattern, and names of parameters and sizes, to what they stand for."""

CONSTANT_TOLERANCE = 1e-6
"""Relative: constants are written in decimals, and pass through float32."""


@dataclass
class Attempt:
    """What came of looking for a pattern at one node: how far it went at best, and what stood in the way there."""

    depth: int = 0
    reason: str = ""
    reached: frozenset[fx.Node] = frozenset()
    """Nodes that matched on the way that went furthest."""

    def fail(self, bound: Bound, reason: str) -> None:
        calls = {v for k, v in bound.items() if isinstance(k, Call)}
        if len(calls) >= self.depth:
            self.depth, self.reason, self.reached = len(calls), reason, frozenset(calls)


@dataclass(frozen=True)
class Matcher:
    pattern: Pattern
    through: tuple[str, ...] = ()
    """Ops of one operand that may stand anywhere between the pattern's calls: ``cast``, ``reshape``."""
    _names: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", frozenset(self._root_names(self.pattern.root)) | set(self.through))

    def _root_names(self, term: Term) -> Iterator[str]:
        if isinstance(term, Call):
            yield from (op.name for op in term.ops)
        elif isinstance(term, Absentable):
            yield from self._root_names(term.present)
            yield from self._root_names(term.plain)

    def could_match(self, node: fx.Node) -> bool:
        """Whether the pattern may have its root at ``node``, by the op alone."""
        return isinstance(node.target, Op) and node.target.name in self._names

    def matches(self, node: fx.Node, attempt: Attempt) -> Iterator[Bound]:
        """Every way in which the pattern's root is ``node``."""
        return self._term(self.pattern.root, node, {}, attempt)

    # --- one term of the pattern against one value

    def _term(self, term: Term, value: Any, bound: Bound, attempt: Attempt) -> Iterator[Bound]:
        match term:
            case Parameter():
                yield from self._parameter(term, value, bound, attempt)
            case Call():
                yield from self._call(term, value, bound, attempt)
            case Absentable() if term in bound:
                yield from self._again(term, value, bound, attempt)
            case Absentable():
                for found in self._term(term.present, value, bound, attempt):
                    yield found | {term: found[term.present]}
                yield from self._absent(term, value, bound, attempt)
            case _:
                if same_constant(term, value):
                    yield bound
                else:
                    attempt.fail(bound, f"{show(value)} is not {show(term)}")

    def _absent(self, term: Absentable, value: Any, bound: Bound, attempt: Attempt) -> Iterator[Bound]:
        for parameter in term.parameters:
            known = bound.get(parameter.name, parameter.absent)
            if known is not parameter.absent and known != parameter.absent:
                attempt.fail(bound, f"{show(value)} lacks {term.present} with {parameter.name} {show(known)}")
                return
        defaults = {p.name: p.absent for p in term.parameters}
        for found in self._term(term.plain, value, bound | defaults, attempt):
            yield found | {term: found[term.plain.name if isinstance(term.plain, Parameter) else term.plain]}

    def _again(self, term: Call | Absentable, value: Any, bound: Bound, attempt: Attempt) -> Iterator[Bound]:
        """A part of the pattern that is read in several places is the same call, or equally absent, in all."""
        if bound[term] in self.behind(value):
            yield bound
        else:
            attempt.fail(bound, f"{show(value)} is not {show(bound[term])} again")

    def _call(self, term: Call, value: Any, bound: Bound, attempt: Attempt) -> Iterator[Bound]:
        if term in bound:
            yield from self._again(term, value, bound, attempt)
            return
        candidates = [v for v in self.behind(value) if is_call(v, *(op.name for op in term.ops))]
        if not candidates:
            attempt.fail(bound, f"{show(self.behind(value)[-1])} is not {term}")
        for node in candidates:
            for found in self._attributes(term, node, bound | {term: node}, attempt):
                if len(node.args) != len(term.operands):
                    attempt.fail(found, f"{show(node)} has {len(node.args)} operands, not {len(term.operands)}")
                    continue
                pairs = list(zip(term.operands, node.args, strict=True))
                yield from self._operands(structure_first(pairs), bound=found, attempt=attempt)
                if node.target.traits.commutative and node.args[0] is not node.args[1]:
                    turned = list(zip(term.operands, node.args[::-1], strict=True))
                    yield from self._operands(structure_first(turned), bound=found, attempt=attempt)

    def _operands(self, pairs: list[tuple[Term, Any]], bound: Bound, attempt: Attempt) -> Iterator[Bound]:
        if not pairs:
            yield bound
            return
        (term, value), *rest = pairs
        for found in self._term(term, value, bound, attempt):
            yield from self._operands(rest, found, attempt)

    def _attributes(self, term: Call, node: fx.Node, bound: Bound, attempt: Attempt) -> Iterator[Bound]:
        if term.chosen is not None:
            name = bound.setdefault(term.chosen.name, node.target.name)
            if name != node.target.name:
                attempt.fail(bound, f"{show(node)} is not {name}")
                return
        for name in node.target.attributes:
            wanted = term.attributes.get(name, node.target.attributes[name])
            value = node.target.attribute(node.kwargs, name)
            if isinstance(wanted, Parameter):
                known = next(self._scalar(wanted, value, bound, attempt), None)
                if known is None:
                    return
                bound = known
            elif not same_constant(wanted, value):
                attempt.fail(bound, f"{show(node)} has {name} {show(value)}, not {show(wanted)}")
                return
        yield bound

    def _parameter(self, term: Parameter, value: Any, bound: Bound, attempt: Attempt) -> Iterator[Bound]:
        if isinstance(term.spec, ScalarSpec):
            yield from self._scalar(term, value, bound, attempt)
            return
        if value is None:
            if isinstance(term.spec, TensorSpec) and term.spec.nullable and bound.get(term.name) is None:
                yield bound | {term.name: None}
            else:
                attempt.fail(bound, f"there is no {term.name}")
            return
        for node in reversed(self.behind(value)):
            sizes = fits(term.spec, node, bound)
            if isinstance(sizes, str):
                attempt.fail(bound, f"{show(node)} is not {term.name}: {sizes}")
            elif term.name in bound and bound[term.name] is not node:
                attempt.fail(bound, f"{show(node)} is not {term.name}, which is {show(bound[term.name])}")
            else:
                yield bound | sizes | {term.name: node}

    def _scalar(self, term: Parameter, value: Any, bound: Bound, attempt: Attempt) -> Iterator[Bound]:
        assert isinstance(term.spec, ScalarSpec)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        allowed = {
            "number": number,
            "size": not isinstance(value, float | fx.Node),
            "any": not isinstance(value, fx.Node),
        }
        if not allowed.get(term.spec.kind, value in term.spec.words):
            attempt.fail(bound, f"{show(value)} is not a {term.spec.kind} ({term.name})")
        elif term.name in bound and bound[term.name] != value:
            attempt.fail(bound, f"{term.name} is {show(bound[term.name])} in one place and {show(value)} in another")
        else:
            yield bound | {term.name: value}

    def behind(self, value: Any) -> list[Any]:
        """``value`` and what stands behind it when ops that may stand anywhere are looked through."""
        found = [value]
        while is_call(found[-1], *self.through):
            found.append(found[-1].args[0])
        return found


def structure_first(pairs: list[tuple[Term, Any]]) -> list[tuple[Term, Any]]:
    """Calls before parameters: they fail sooner where nothing matches, and later where something nearly does."""
    return sorted(pairs, key=lambda pair: not isinstance(pair[0], Call | Absentable))


def fits(spec: Any, node: Any, bound: Mapping[Any, Any]) -> dict[str, Any] | str:
    """The sizes that ``node`` gives the spec's names, or why it cannot be one."""
    kind = type_of(node)
    if isinstance(spec, StateSpec):
        return {} if isinstance(kind, PagedType) else f"it is {kind}, not a state"
    if not isinstance(kind, TensorType):
        return f"it is {kind}, not a tensor"
    if spec.kind == "weight" and not is_weight(node):
        return "it is computed, not a weight"
    if kind.is_float != (spec.kind in ("float", "weight")) and spec.kind != "tensor":
        return f"it is {kind}, not of {spec.kind}s"
    if len(kind.shape) < len(spec.dims) or (len(kind.shape) != len(spec.dims) and not spec.leading):
        return f"{kind} does not have the axes {' '.join(map(str, spec.dims))}"
    sizes: dict[str, Any] = {}
    last = kind.shape[len(kind.shape) - len(spec.dims) :]
    for name, size in zip(spec.dims, last, strict=True):
        known = name if isinstance(name, int) else bound.get(name, sizes.get(name, size))
        if known != size:
            return f"{name} is {known}, and {kind} has {size}"
        if isinstance(name, str):
            sizes[name] = size
    return sizes


def same_constant(wanted: Any, value: Any) -> bool:
    """Whether a constant of the graph is the pattern's: numbers by value (2 is 2.0), and floats nearly."""
    if {type(wanted), type(value)} in ({float}, {int, float}):
        return isclose(value, wanted, rel_tol=CONSTANT_TOLERANCE)
    return type(wanted) is type(value) and bool(wanted == value)


def show(value: Any) -> str:
    """A value as a reason names it: its op first, because names are numbered."""
    if isinstance(value, fx.Node) and isinstance(value.target, Op):
        return f"%{value.name} = {value.target.name}(...)"
    return print_value(value)
