"""A pass that is not right cannot be imported, and the error says what to do."""

from typing import Any

import pytest
from xllmc.passes.api import (
    Float,
    Int,
    Number,
    Size,
    State,
    Tensor,
    Value,
    Values,
    Weight,
    example,
    graph_pass,
    ops,
    optional,
    rewrite,
)
from xllmc.passes.authoring.base import kebab

from tests.passes.writing import ROW, Row


def rewriting(**changes: Any) -> type:
    """``exp(neg(x))``   ==>   the same: a right class for ``@rewrite``, with ``changes`` to its body."""

    def pattern(self, x: Row) -> Value:
        return ops.exp(-x)

    def replacement(self, x: Value) -> Value:
        return ops.exp(-x)

    body = {
        "__doc__": "``exp(neg(x))``   ==>   the same",
        "__module__": __name__,
        "pattern": pattern,
        "replacement": replacement,
        "examples": (example(lambda x: ops.exp(-x), x=ROW),),
        **changes,
    }
    return type("Right", (), {name: value for name, value in body.items() if value is not None})


def test_the_class_that_these_tests_spoil_is_right():
    made = rewrite(stage="fused")(rewriting())
    assert (made.name, made.stage, made.numerics, made().options) == ("right", "fused", "exact", {})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"__doc__": None}, "pass right requires a docstring: what it turns into what"),
        ({"pattern": None}, "rewrite right requires a method pattern"),
        ({"replacement": None}, "rewrite right requires a method replacement"),
        ({"examples": ()}, r"rewrite right requires an example that it changes: examples = \(example\(...\),\)"),
        (
            {"examples": (example(lambda x: ops.exp(x), x=ROW, rejects="is not neg"),)},
            "rewrite right requires an example that it changes",
        ),
        (
            {"examples": (example(lambda x: ops.exp(x), x=ROW),)},
            r"pass right, example 0 \(f32\[T, 4\]\): 0 matches, not 1; near misses: %x is not neg",
        ),
        (
            {"examples": (example(lambda x: ops.exp(-x), x=ROW, matches=2),)},
            r"pass right, example 0 \(f32\[T, 4\]\): 1 matches, not 2; near misses: none",
        ),
        (
            {"examples": (example(lambda x: ops.exp(-x), x=ROW), example(lambda x: ops.exp(x), x=ROW, rejects="tanh"))},
            r"pass right, example 1 \(tanh\): the reason should say 'tanh', got %x is not neg",
        ),
        (
            {"examples": (example(lambda x: ops.rms_norm(x, x, eps=0.0), x=ROW),)},
            r"example 0 \(f32\[T, 4\]\) is not a graph: rms_norm requires a weight",
        ),
        (
            {"examples": (example(lambda x: ops.exp(-x), x="f33[T, 4]"),)},
            r"example 0 \(f33\[T, 4\]\) is not a graph: not a type: 'f33\[T, 4\]'; expected dtype\[sizes\]",
        ),
        ({"__annotations__": {"most": int}}, "pass right requires a default for its option most"),
        ({"__annotations__": {"name": str}, "name": "x"}, "pass right cannot have options named name"),
        ({"__annotations__": {"run": int}, "run": 3}, "pass right cannot have options named run"),
        ({"__annotations__": {"examples": tuple}}, "pass right cannot have options named examples"),
    ],
)
def test_a_wrong_class_is_refused(changes, reason):
    with pytest.raises(TypeError, match=reason):
        rewrite(stage="fused")(rewriting(**changes))


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"stage": "traced"}, "requires a stage of canonical, recognised, fused, lowered, got 'traced'"),
        ({"stage": "late"}, "requires a stage of canonical, .*, got 'late'"),
        ({"numerics": "lossy"}, "a lossy pass states the tolerance it keeps, and only a lossy one does"),
        ({"tolerance": 0.1}, "a lossy pass states the tolerance it keeps, and only a lossy one does"),
    ],
)
def test_a_wrong_declaration_is_refused(declared, reason):
    with pytest.raises(TypeError, match=reason):
        rewrite(**{"stage": "fused", **declared})(rewriting())


def patterns() -> list[Any]:
    """(A pattern, and why it is none)."""

    def unsaid(self, x) -> Value:
        return ops.exp(x)

    def plain(self, x: Value) -> Value:
        return ops.exp(x)

    def several_kinds(self, x: Row | Number) -> Value:
        return ops.exp(x)

    def unused(self, x: Row, y: Row) -> Value:
        return ops.exp(x)

    def no_call(self, x: Row) -> Value:
        return x

    def apart(self, x: Row) -> Values:
        return ops.exp(x), ops.neg(x)

    def missing_attribute(self, x: Row) -> Value:
        return ops.pow(x)

    def unknown_attribute(self, x: Row) -> Value:
        return ops.exp(x, fast=True)

    def no_op(self, x: Row) -> Value:
        return ops.expp(x)

    def shape_of(self, x: Row) -> Value:
        return ops.reshape(x, shape=x.shape)

    def part_of_attribute(self, x: Float[Value, "T H"], H: Size) -> Value:
        return ops.reshape(x, shape=(H, 1))

    def optional_without_default(self, x: Row, n: Number) -> Value:
        return optional(ops.mul, ops.exp(x), n)

    def optional_not_nullable(self, x: Row, y: Row) -> Value:
        return optional(ops.mul, ops.exp(x), y)

    def reserved(self, inside: Row) -> Value:
        return ops.exp(inside)

    def reserved_size(self, x: Float[Value, "T m"]) -> Value:
        return ops.exp(x)

    def unpacked(self, x: Row, y: Row, w: Weight[Value, "H"]) -> Value:
        s, n = ops.add_rms_norm(x, y, w, eps=1e-6)
        return s + n

    def lost_state(
        self,
        s: State,
        k: Float[Value, "T G D"],
        slots: Int[Value, "T"],
        table: Int[Value, "S B"],
        starts: Int[Value, "Q"],
    ) -> Value:
        return ops.paged_attention(k, ops.kv_write(s, k, k, slots), table, starts, slots, scale=0.5)

    return [
        (unsaid, 'parameter x requires an annotation such as Float\\[Value, "T H"\\].*, got'),
        (plain, "parameter x requires an annotation such as"),
        (several_kinds, "parameter x requires an annotation such as"),
        (unused, "does not use y"),
        (no_call, "must return a call of an op, or a tuple of such"),
        (apart, "one of its outputs must be computed from all others; return that one too"),
        (missing_attribute, "a pattern of pow must say exponent; exponent is not said"),
        (unknown_attribute, "a pattern of exp must say no attributes; it has no fast"),
        (no_op, "there is no op 'expp'; known: abs, "),
        (shape_of, "a pattern has no types or shapes: name sizes in its annotations"),
        (part_of_attribute, "a pattern cannot name parts of shape: take it whole"),
        (optional_without_default, r"parameter n of an optional mul requires a default, or `\| None`"),
        (optional_not_nullable, r"parameter y of an optional mul requires a default, or `\| None`"),
        (reserved, "cannot have a parameter or size named inside"),
        (unpacked, r"results are taken by index, both\[0\] and both\[1\]"),
        (lost_state, "kv_write changes a state; return the changed state too"),
        (reserved_size, "cannot have a parameter or size named m"),
    ]


@pytest.mark.parametrize(("pattern", "reason"), patterns(), ids=[p.__name__ for p, _ in patterns()])
def test_what_is_no_pattern_is_refused(pattern, reason):
    with pytest.raises((TypeError, AttributeError), match=reason):
        rewrite(stage="fused")(rewriting(pattern=pattern))


def replacements() -> list[Any]:
    """(A replacement of ``exp(neg(x))``, and why it is none)."""

    def unknown(self, x: Value, w: Value) -> Value:
        return ops.exp(x)

    def number(self, x: Value) -> Any:
        return 1.0

    def too_many(self, x: Value) -> Values:
        return ops.exp(x), ops.exp(x)

    def another_type(self, x: Value) -> Value:
        return ops.cast(ops.exp(x), dtype="bf16")

    def ill_typed(self, x: Value) -> Value:
        return ops.rms_norm(x, x, eps=0.0)

    return [
        (unknown, "rewrite right: the pattern has no w for its replacement"),
        (number, "right: the replacement must return values, got 1.0"),
        (too_many, "right: the pattern has 1 outputs, the replacement 2"),
        (another_type, r"0 matches, not 1; near misses: the replacement is bf16\[T, 4\] where f32\[T, 4\] is needed"),
        (ill_typed, r"0 matches, not 1; near misses: rms_norm requires a weight \[4\]"),
    ]


@pytest.mark.parametrize(("replacement", "reason"), replacements(), ids=[r.__name__ for r, _ in replacements()])
def test_a_replacement_that_does_not_fit_is_refused(replacement, reason):
    with pytest.raises(TypeError, match=reason):
        rewrite(stage="fused")(rewriting(replacement=replacement))


@pytest.mark.parametrize(
    ("kind", "item", "reason"),
    [
        (Float, Value, r"Float requires a type and its axes, such as Float\[Value, '... H'\]; got"),
        (Weight, (Value, 4), "Weight requires a type and its axes"),
        (Tensor, (Value, "T ... H"), r"names and numbers, after ... for any others; got '...' in 'T ... H'"),
        (Float, (Value, "T, H"), "got 'T,' in 'T, H'"),
    ],
)
def test_wrong_axes_are_refused(kind, item, reason):
    with pytest.raises(TypeError, match=reason):
        kind[item]


def test_an_example_gives_every_input_a_type():
    with pytest.raises(TypeError, match="an example requires a type for each of x, y, got x"):
        example(lambda x, y: x + y, x=ROW)


def test_a_graph_pass_needs_a_run():
    with pytest.raises(TypeError, match=r"graph pass nothing requires a method run\(self, rewriter\)"):

        @graph_pass(stage="fused")
        class Nothing:
            """Does nothing."""


def test_a_graph_passs_examples_are_held_to():
    def spoilt(shown):
        @graph_pass(stage="fused")
        class Misses:
            """Finds fault with every exp."""

            def run(self, rewriter) -> None:
                for node in rewriter.calls("exp"):
                    rewriter.miss(node, "exp is not liked")

            examples = (shown,)

    spoilt(example(lambda x: ops.exp(x), x=ROW, rejects="not liked"))
    with pytest.raises(
        TypeError, match=r"pass misses, example 0 \(f32\[T, 4\]\): 0 matches, not 1; near misses: exp is"
    ):
        spoilt(example(lambda x: ops.exp(x), x=ROW))


def test_a_graph_pass_that_breaks_its_example_is_refused():
    with pytest.raises(
        TypeError, match=r"pass breaks, example 0 .*: it makes an invalid program: forward: %exp is rec"
    ):

        @graph_pass(stage="fused")
        class Breaks:
            """Leaves a wrong type behind."""

            def run(self, rewriter) -> None:
                node = rewriter.calls("exp")[0]
                rewriter.matched(node)
                node.meta["type"] = node.meta["type"].with_dtype("bf16")

            examples = (example(lambda x: ops.exp(x), x=ROW),)


def test_a_function_is_a_graph_pass_too():
    @graph_pass(stage="canonical", before=("a", "b"), after="c")
    def count_calls(rewriter) -> None:
        """Counts."""
        for node in rewriter.calls():
            rewriter.matched(node)

    assert (count_calls.name, count_calls.before, count_calls.after) == ("count-calls", ("a", "b"), ("c",))
    assert (count_calls.__module__, count_calls.each_stage, count_calls.__doc__) == (__name__, False, "Counts.")
    with pytest.raises(TypeError, match="pass silent requires a docstring"):
        graph_pass(stage="fused", name="silent")(lambda rewriter: None)


def test_a_pass_of_each_stage_has_no_other_place():
    with pytest.raises(TypeError, match="a pass of each stage runs at its beginning; before and after say nothing"):
        graph_pass(stage="canonical", each_stage=True, after="canonicalize")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FuseAddRMSNorm", "fuse-add-rms-norm"),
        ("FuseQKVWrite", "fuse-qkv-write"),
        ("RecognizeGelu", "recognize-gelu"),
        ("fuse_add_norm", "fuse-add-norm"),
        ("Int8Weights", "int8-weights"),
    ],
)
def test_names_are_words_with_dashes(name, words):
    assert kebab(name) == words
