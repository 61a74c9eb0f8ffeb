"""Patterns planted in random graphs: every legal one is found, no other, and the graph computes what it did."""

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from xllmc.compiler.check.samples import Samples
from xllmc.compiler.ir.verify import verify
from xllmc.compiler.pipeline.run import run_pass
from xllmc.passes.api import Value, Values, example, ops, rewrite

from tests.passes.interpreted import difference
from tests.passes.writing import ROW, Row, forward
from tests.programs import program

UNARY = ("neg", "abs", "tanh", "relu")
BINARY = ("sub", "maximum", "minimum")
"""What the graphs are made of besides the patterns, which have no call in common with these."""


@rewrite(stage="fused")
class OneResult:
    """``sigmoid(a) * (a + b)``   ==>   ``(b + a) * sigmoid(a)``"""

    def pattern(self, a: Row, b: Row) -> Value:
        return ops.sigmoid(a) * (a + b)

    def replacement(self, a: Value, b: Value) -> Value:
        return (b + a) * ops.sigmoid(a)

    examples = (example(lambda a, b: ops.sigmoid(a) * (a + b), a=ROW, b=ROW),)


@rewrite(stage="fused")
class TwoResults:
    """``s = a + b;  p = sigmoid(c) * s``   ==>   ``s = b + a;  p = s * sigmoid(c)``, both read elsewhere or not"""

    def pattern(self, a: Row, b: Row, c: Row) -> Values:
        s = a + b
        return s, ops.sigmoid(c) * s

    def replacement(self, a: Value, b: Value, c: Value) -> Values:
        s = b + a
        return s, s * ops.sigmoid(c)

    examples = (example(lambda a, b, c: ops.sigmoid(c) * (a + b), a=ROW, b=ROW, c=ROW),)


@dataclass
class Planted:
    """A graph's statements, and the values that each planted pattern is made of."""

    lines: list[str]
    values: list[str]
    """Names, in order."""
    reads: dict[str, tuple[str, ...]]
    patterns: list[dict[str, str]]
    """Each from the pattern's names for its calls and inputs to values."""

    def add(self, op: str, *operands: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"{name}: {ROW} = {op}({', '.join(operands)})")
        self.values.append(name)
        self.reads[name] = operands
        return name

    def readers(self, value: str) -> set[str]:
        return {name for name, operands in self.reads.items() if value in operands}

    def follows(self, value: str, from_value: str) -> bool:
        """Whether ``value`` is computed from ``from_value``."""
        return value == from_value or any(self.follows(v, from_value) for v in self.reads.get(value, ()))


@st.composite
def planted(draw: Any, two_results: bool) -> Planted:
    """Calls and patterns in turn, of values made before; the last values are returned, and now and then others."""
    graph = Planted([], ["%x", "%z"], {}, [])

    def value() -> str:
        return draw(st.sampled_from(graph.values))

    def either(*operands: str) -> tuple[str, ...]:
        return operands[::-1] if draw(st.booleans()) else operands

    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            op = draw(st.sampled_from((*UNARY, *BINARY)))
            graph.add(op, value(), *([value()] if op in BINARY else []))
            continue
        a, b = value(), value()
        made = {"a": a, "b": b, "s": graph.add("add", *either(a, b))}
        for _ in range(draw(st.integers(0, 2)) if two_results else 0):
            graph.add(draw(st.sampled_from(UNARY)), value())
        made["c"] = value() if two_results else a
        made["g"] = graph.add("sigmoid", made["c"])
        made["p"] = graph.add("mul", *either(made["g"], made["s"]))
        graph.patterns.append(made)
    return graph


def returned(graph: Planted, extra: list[str]) -> list[str]:
    unread = [v for v in graph.values if not graph.readers(v) and v not in ("%x", "%z")]
    return list(dict.fromkeys([*unread, *extra]))


@settings(max_examples=60)
@given(planted(two_results=False), st.data())
def test_a_planted_pattern_is_found_unless_its_inside_is_read(graph, data):
    results = returned(graph, data.draw(st.lists(st.sampled_from(graph.values[2:]), max_size=2)))
    legal = [
        p
        for p in graph.patterns
        if all(graph.readers(p[inside]) == {p["p"]} and p[inside] not in results for inside in ("s", "g"))
    ]
    before = program(forward("\n".join(graph.lines), ", ".join(results)))
    changed, report = run_pass(before, OneResult())
    assert report.matches == len(legal)
    assert len(report.near_misses) == len(graph.patterns) - len(legal)
    assert all("is read elsewhere too" in reason for reason in report.near_misses)
    check_unchanged(before, changed)


@settings(max_examples=60)
@given(planted(two_results=True), st.data())
def test_a_pattern_of_two_results_is_found_unless_it_would_turn_in_a_circle(graph, data):
    """Where its inputs stand between readers of its first result, it may be refused, but is never torn."""
    results = returned(graph, data.draw(st.lists(st.sampled_from(graph.values[2:]), max_size=2)))
    alone = [p for p in graph.patterns if graph.readers(p["g"]) == {p["p"]} and p["g"] not in results]
    possible = [p for p in alone if not graph.follows(p["c"], p["s"])]
    certain = [p for p in possible if graph.values.index(p["c"]) < graph.values.index(p["s"])]
    before = program(forward("\n".join(graph.lines), ", ".join(results)))
    changed, report = run_pass(before, TwoResults())
    assert len(certain) <= report.matches <= len(possible)
    assert report.matches + len(report.near_misses) == len(graph.patterns)
    check_unchanged(before, changed)


def check_unchanged(before: Any, changed: Any) -> None:
    verify(changed)
    for samples in (Samples(0), Samples(1, infinite=True)):
        assert difference(before, changed, samples) == 0
