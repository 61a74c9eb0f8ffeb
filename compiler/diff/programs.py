"""The difference of two programs by structure: what their values are called does not count.

Statements of both sides are matched by what they compute and where they come from. A matched value has one name on both
sides, made from its op and its place in the first program, so that a line differs only where a program does. Module
paths are shown and help to match, but are not part of what a program is. Order counts: it is the order of launches.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from torch import fx

from ...runtime.artifact.errors import ArtifactError, XllmcError
from ..ir.op import Op, Traits
from ..ir.parse import parse_program
from ..ir.program import Function, Program, Weight, is_weight
from ..ir.text import print_value
from .align import align
from .changes import Row, Text
from .names import matched_names, same_but_for_numbers

Names = dict[fx.Node, str]


class AnyOp(dict[str, Op]):
    """Every name is an op, of which only the name is known: a plugin's op need not be installed to be read."""

    def __missing__(self, name: str) -> Op:
        def unknown(*operands: Any, **attributes: Any) -> Any:
            raise TypeError(f"op {name} was read for its text only")

        self[name] = Op(name, unknown, Traits(), {})
        return self[name]

    def __contains__(self, name: object) -> bool:
        return True


def read_program(text: str, source: str) -> Program:
    """The program of a text form, whatever ops it calls. ``source`` names it in the ArtifactError for a broken one."""
    try:
        program = parse_program(text, AnyOp())
        for function in program.functions.values():
            if len(function.outputs) != len(function.results):
                raise ValueError(
                    f"function {function.name} returns {len(function.outputs)} values, not one each for "
                    f"{', '.join(function.results)}"
                )
        return program
    except (XllmcError, ValueError, KeyError, IndexError, TypeError, ValidationError, RecursionError) as error:
        raise ArtifactError(f"{source} does not hold the text of a program: {error}") from error


def compare_programs(before: Program, after: Program) -> tuple[Text, ...]:
    """One text each for the head, the weights and every function; empty where the programs are equal."""
    weights = matched_names(_signatures(before.weights), _signatures(after.weights))
    texts = [
        Text("program", tuple(_lines(_head(before), _head(after)))),
        Text("weights", tuple(_weight_rows(before, after, weights))),
    ]
    for name in dict.fromkeys([*before.functions, *after.functions]):
        rows = _function_rows(before.functions.get(name), after.functions.get(name), weights)
        texts.append(Text(f"func {name}", tuple(rows)))
    return tuple(text for text in texts if text.changed)


def normalised(program: Program) -> str:
    """The text by which equal programs are equal, whatever their values are called."""
    kept = {name: name for name in program.weights}
    lines = [*_head(program), *(_declaration(n, w) for n, w in sorted(program.weights.items()))]
    for function in program.functions.values():
        rows = _function_rows(function, function, kept)
        lines += [f"func {function.name}", *(str(row.after).partition("  //")[0] for row in rows)]
    return "\n".join(lines) + "\n"


# --- head and weights


def _head(program: Program) -> list[str]:
    facts = program.facts.model_dump(mode="json")
    groups = [f"group {g.index} window = {'none' if g.window is None else g.window}" for g in program.groups]
    return [f"stage = {program.stage}", *(f"{k} = {json.dumps(v)}" for k, v in facts.items()), *groups]


def _lines(before: Sequence[str], after: Sequence[str]) -> Iterator[Row]:
    keys: list[Callable[[str], str]] = [lambda line: line, lambda line: re.split("[:=]", line)[0]]
    for i, j in align(before, after, keys):
        old, new = None if i is None else before[i], None if j is None else after[j]
        yield Row(old, new, old == new)


def _signatures(weights: Mapping[str, Weight]) -> dict[str, str]:
    return {name: _definition(weight) for name, weight in weights.items()}


def _definition(weight: Weight) -> str:
    recipe = json.dumps(weight.recipe.to_json(), sort_keys=True, separators=(",", ":"))
    return f"{weight.type} {weight.layout} = {recipe}"


def _declaration(name: str, weight: Weight) -> str:
    return f"weight @{name}: {_definition(weight)}"


def _weight_rows(before: Program, after: Program, names: Mapping[str, str]) -> Iterator[Row]:
    originals = {common: name for name, common in names.items()}
    for name, weight in before.weights.items():
        old = _declaration(name, weight)
        if name not in originals:
            yield Row(old, None, same=False)
            continue
        original = originals[name]
        new = _declaration(original, after.weights[original])
        same = _definition(weight) == _definition(after.weights[original])
        yield Row(old, new, same and same_but_for_numbers(name, original))
    for name, weight in after.weights.items():
        if names[name] not in before.weights:
            yield Row(None, _declaration(names[name], weight), same=False)


# --- functions


class Statement(NamedTuple):
    """A call, without the values it reads."""

    node: fx.Node
    op: str
    shape: str
    """The whole statement with ``%`` for every value."""
    where: str


def _function_rows(before: Function | None, after: Function | None, weights: Mapping[str, str]) -> Iterator[Row]:
    own = _Side(before, {})
    other = _Side(after, weights)
    yield from _lines(own.inputs, other.inputs)
    keys: list[Callable[[Statement], object]] = [
        lambda s: (s.shape, s.where),
        lambda s: (s.op, s.where),
        lambda s: s.shape,
        lambda s: s.op,
    ]
    pairs = align(own.statements, other.statements, keys)
    _name_values(own, other, pairs)
    for i, j in pairs:
        old, new = (side.line(place) for side, place in ((own, i), (other, j)))
        same = old is not None and new is not None and old.code == new.code
        yield Row(old and old.shown, new and new.shown, same)
    yield from _lines(own.results, other.results)


class _Line(NamedTuple):
    code: str
    where: str

    @property
    def shown(self) -> str:
        return f"{self.code}  // {self.where}" if self.where else self.code


class _Side:
    """One of the two functions; an absent one has no lines."""

    def __init__(self, function: Function | None, weights: Mapping[str, str]) -> None:
        self.function = function
        self.weights = weights
        nodes = function.inputs if function else []
        self.names: Names = {n: f"%{n.target}" for n in nodes}
        self.inputs = [f"input %{n.target}: {n.meta['type']}" for n in nodes]
        self.statements = [
            Statement(n, n.target.name, self.code(n, anonymous=True), n.meta.get("where") or "")
            for n in (function.calls if function else [])
        ]

    @property
    def results(self) -> list[str]:
        if self.function is None:
            return []
        pairs = zip(self.function.results, self.function.outputs, strict=True)
        return [f"return {name} = {self.value(value)}" for name, value in pairs]

    def line(self, place: int | None) -> _Line | None:
        if place is None:
            return None
        statement = self.statements[place]
        return _Line(self.code(statement.node), statement.where)

    def code(self, node: fx.Node, anonymous: bool = False) -> str:
        operands = ["%" if anonymous and _is_value(a) else self.value(a) for a in node.args]
        attributes = [f"{k}={print_value(v)}" for k, v in sorted(node.kwargs.items())]
        name = "%" if anonymous else self.names[node]
        return f"{name}: {node.meta['type']} = {node.target.name}({', '.join(operands + attributes)})"

    def value(self, value: Any) -> str:
        if is_weight(value):
            return f"@{self.weights.get(value.target, value.target)}"
        return self.names[value] if isinstance(value, fx.Node) else print_value(value)


def _is_value(operand: Any) -> bool:
    return isinstance(operand, fx.Node) and not is_weight(operand)


def _name_values(own: _Side, other: _Side, pairs: Sequence[tuple[int | None, int | None]]) -> None:
    """One name for both of a matched pair; names follow from ops and order alone."""
    taken = {*own.names.values(), *other.names.values()}
    counts: Counter[str] = Counter()

    def fresh(op: str) -> str:
        while True:
            name = f"%{op}_{counts[op]}" if counts[op] else f"%{op}"
            counts[op] += 1
            if name not in taken:
                return name

    for statement in own.statements:
        own.names[statement.node] = fresh(statement.op)
    partners = {j: i for i, j in pairs if i is not None and j is not None}
    for place, statement in enumerate(other.statements):
        partner = partners.get(place)
        other.names[statement.node] = (
            fresh(statement.op) if partner is None else own.names[own.statements[partner].node]
        )
