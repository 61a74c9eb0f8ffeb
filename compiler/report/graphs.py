"""Programs as tables: every different statement once, and each program as runs of statements.

A pass leaves most of a program as it was, so that fifteen programs take little more than one. Values keep their names
over a pass; that is what tells an untouched value from a new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from ..ir.op import Op
from ..ir.program import Function, Program
from ..ir.text import print_value
from ..ops import OPS

RETURN = "return"
"""The op of the statement that ends a function."""


@dataclass(frozen=True)
class Statements:
    """Columns of equal length: one entry for each different statement of any program. All but ``operands`` index
    ``strings``; an operand list does too.
    """

    name: list[int] = field(default_factory=list)
    op: list[int] = field(default_factory=list)
    type: list[int] = field(default_factory=list)
    where: list[int] = field(default_factory=list)
    attributes: list[int] = field(default_factory=list)
    operands: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Graphs:
    strings: list[str]
    statements: Statements
    programs: list[dict[str, list[int]]]
    """Per program, function to alternating first statement and count: the statements in order."""
    inputs: dict[str, str]
    """Inputs and states of functions, and their types."""
    weights: list[dict[str, str]]
    """Per program: type and layout of the weights that the one before lacks, or has otherwise."""
    categories: dict[str, str]
    """Ops, those of the op set and any others, to the kind of their work, which chooses their colour."""


class _Encoder:
    """Interns strings and statements."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {}
        self.rows: dict[tuple[Any, ...], int] = {}
        self.statements = Statements()
        self.ops: dict[str, str] = {RETURN: RETURN}

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def function(self, function: Function) -> list[int]:
        """Runs of statements: first, count, first, count..."""
        runs: list[int] = []
        for node in function.graph.nodes:
            if node.op not in ("call_function", "output"):
                continue
            row = self.statement(node)
            if runs and row == runs[-2] + runs[-1]:
                runs[-1] += 1
            else:
                runs += (row, 1)
        return runs

    def statement(self, node: fx.Node) -> int:
        op, operands, attributes, kind = RETURN, node.args, "", ""
        if isinstance(node.target, Op):
            op, kind = node.target.name, str(node.meta["type"])
            attributes = "\n".join(f"{k}={print_value(v)}" for k, v in sorted(node.kwargs.items()))
            self.ops.setdefault(op, category(node.target))
        else:
            operands = node.args[0]
        key = (node.name, op, kind, node.meta.get("where", ""), attributes, *map(print_value, operands))
        if key not in self.rows:
            self.rows[key] = len(self.rows)
            columns = self.statements
            for column, text in zip(
                (columns.name, columns.op, columns.type, columns.where, columns.attributes), key, strict=False
            ):
                column.append(self.string(text))
            columns.operands.append([self.string(text) for text in key[5:]])
        return self.rows[key]


def encode(programs: Sequence[Program]) -> Graphs:
    """The tables of ``programs``: the traced one, and what each pass left."""
    encoder = _Encoder()
    encoded = [{name: encoder.function(f) for name, f in p.functions.items()} for p in programs]
    inputs = {str(n.target): str(n.meta["type"]) for p in programs for f in p.functions.values() for n in f.inputs}
    described = [{name: f"{w.type} {w.layout}" for name, w in p.weights.items()} for p in programs]
    weights = [
        {name: text for name, text in now.items() if before.get(name) != text}
        for before, now in zip([{}, *described], described, strict=False)
    ]
    known = {name: category(op) for name, op in OPS.items()}
    return Graphs(list(encoder.strings), encoder.statements, encoded, inputs, weights, known | encoder.ops)


def category(op: Op) -> str:
    """``shape``, ``pointwise``, ``reduction``, or the module of the op set that defines it (``linear``, ``norm``...).

    Ops of plugins that say nothing of themselves by their traits are ``other``.
    """
    for name, holds in (
        ("shape", op.traits.view),
        ("pointwise", op.traits.pointwise),
        ("reduction", op.traits.reduction),
    ):
        if holds:
            return name
    package, _, module = str(getattr(op.reference, "__module__", "")).rpartition(".")
    return module if package == Op.__module__.replace(".ir.op", ".ops") else "other"
