"""What a rewrite takes, what it refuses and why, and what it leaves standing."""

from typing import Any

import pytest
from xllmc.compiler.ir.verify import verify
from xllmc.compiler.pipeline.run import PassError, RunOptions, run_pass
from xllmc.passes.api import (
    Float,
    Match,
    Number,
    Value,
    Weight,
    example,
    ops,
    optional,
    recipes,
    rewrite,
)
from xllmc.passes.authoring.gain import SiteCosts
from xllmc.passes.recognize_rms_norm import RecognizeRMSNorm

from tests.passes.writing import ROW, Row, forward
from tests.programs import after, program, statements


@rewrite(stage="fused")
class Exchange:
    """``a - b`` of a sum and a row   ==>   ``neg(b - a)``, where b is no product"""

    def pattern(self, a: Row, b: Row, c: Row) -> Value:
        return (a + b) - c

    def replacement(self, a: Value, b: Value, c: Value) -> Value:
        return -(c - (b + a))

    def when(self, m: Match) -> str | None:
        return "b is a product" if m.b.op == "call_function" and m.b.target.name == "mul" else None

    examples = (example(lambda a, b, c: (a + b) - c, a=ROW, b=ROW, c=ROW),)


def test_another_way_of_matching_is_taken_where_the_first_is_not_legal():
    text = "%p: f32[T, 4] = mul({}, 2.0)\n%s: f32[T, 4] = add({})\n%y: f32[T, 4] = sub(%s, %z)"
    for operands in ("%x, %p", "%p, %x"):
        lines, report = after(Exchange(), program(forward(text.format("%x", operands))))
        assert report.matches == 1
        assert "%add: f32[T, 4] = add(%x, %p)" in lines
    both = "%p: f32[T, 4] = mul(%x, 2.0)\n%s: f32[T, 4] = add(%p, %p)\n%y: f32[T, 4] = sub(%s, %z)"
    lines, report = after(Exchange(), program(forward(both)))
    assert (report.matches, report.near_misses) == (0, ("y: b is a product",))
    assert lines[-2] == "%y: f32[T, 4] = sub(%s, %z)"


# --- a replacement that does not fit


@rewrite(stage="fused", numerics="reassociating")
class Norm:
    """``x * rsqrt(mean(x * x))``   ==>   ``rms_norm``, of whatever weight stands beside"""

    def pattern(self, x: Float[Value, "..."], w: Float[Value, "..."]) -> Value:
        return w * (x * ops.rsqrt(ops.mean(x * x)))

    def replacement(self, x: Value, w: Value) -> Value:
        return ops.rms_norm(x, w, eps=0.0)

    examples = (
        example(lambda x, w: w * (x * ops.rsqrt(ops.mean(x * x))), x="f32[T, 64]", w="weight f32[64]"),
        example(
            lambda x, w: w * (x * ops.rsqrt(ops.mean(x * x))),
            x="f32[T, 64]",
            w="f32[T, 64]",
            rejects="rms_norm requires a weight [64], got f32[T, 64]",
        ),
    )


def test_what_an_op_refuses_is_a_near_miss():
    _, report = run_pass(Norm.examples[1].program(), Norm())
    assert [str(s) for s in report.sites] == ["mul_2: rms_norm requires a weight [64], got f32[T, 64]"]


def test_a_replacement_of_another_type_is_a_near_miss():
    @rewrite(stage="fused", through=())
    class Wide:
        """``relu(linear(x, w))``   ==>   the same in float32"""

        def pattern(self, x: Float[Value, "T K"], w: Weight[Value, "N K"]) -> Value:
            return ops.relu(ops.linear(x, w, None))

        def replacement(self, x: Value, w: Value) -> Value:
            return ops.linear(x, w, None, activation="relu", out_dtype="f32")

        examples = (
            example(lambda x, w: ops.relu(ops.linear(x, w, None)), x=ROW, w="weight f32[8, 4]"),
            example(
                lambda x, w: ops.relu(ops.linear(x, w, None)),
                x="bf16[T, 4]",
                w="weight bf16[8, 4]",
                rejects="the replacement is f32[T, 8] where bf16[T, 8] is needed",
            ),
        )

    assert len(Wide.examples) == 2


NORM = """%f: f32[T, 16] = cast(%x, dtype="f32")
%p: f32[T, 16] = pow(%f, exponent={exponent})
%m: f32[T, 1] = mean(%p)
%a: f32[T, 1] = add(%m, 1e-06)
%r: f32[T, 1] = rsqrt(%a)
%n: f32[T, 16] = mul(%f, %r)
%w: f32[T, 16] = mul(%n, @w)
%y: bf16[T, 16] = cast(%w, dtype="bf16")"""


def test_a_match_includes_the_cast_of_its_root():
    text = forward(NORM.format(exponent=2.0), inputs="%x: bf16[T, 16]")
    lines, report = after(RecognizeRMSNorm(), program(text, ["w [16]"]))
    assert lines == ["%rms_norm: bf16[T, 16] = rms_norm(%x, @w, eps=1e-06)", "return %rms_norm"]
    assert report.near_misses == ()


def test_a_near_miss_behind_a_cast_is_told_once():
    text = forward(NORM.format(exponent=3.0), inputs="%x: bf16[T, 16]")
    _, report = after(RecognizeRMSNorm(), program(text, ["w [16]"]))
    assert report.near_misses == ("y: %p = pow(...) has exponent 3.0, not 2.0",)


# --- readers


def test_a_call_inside_that_is_read_elsewhere_is_refused():
    body = "%s: f32[T, 4] = add(%x, %z)\n%y: f32[T, 4] = sub(%s, %x)\n%e: f32[T, 4] = exp(%s)"
    lines, report = after(Exchange(), program(forward(body, "%y, %e")))
    assert report.near_misses == ("y: %s = add(...) is read elsewhere too, by %e = exp(...)",)
    assert lines[:2] == ["%s: f32[T, 4] = add(%x, %z)", "%y: f32[T, 4] = sub(%s, %x)"]


def test_a_call_that_the_function_returns_is_read_elsewhere():
    body = "%s: f32[T, 4] = add(%x, %z)\n%y: f32[T, 4] = sub(%s, %x)"
    _, report = after(Exchange(), program(forward(body, "%y, %s")))
    assert report.matches == 0 and "is read elsewhere too" in report.near_misses[0]


def relu_of_linear(x: Value, w: Value) -> Value:
    return ops.relu(ops.cast(ops.linear(x, w, None), dtype="f32"))


@rewrite(stage="fused", numerics="reassociating")
class Activation:
    """``relu(cast(linear(x, w)))``   ==>   ``linear(x, w, activation=relu)``"""

    def pattern(self, x: Float[Value, "T K"], w: Weight[Value, "N K"]) -> Value:
        return ops.relu(ops.linear(x, w, None))

    def replacement(self, x: Value, w: Value) -> Value:
        return ops.linear(x, w, None, activation="relu", out_dtype="f32")

    examples = (example(relu_of_linear, x="bf16[T, 4]", w="weight bf16[8, 4]"),)


def test_a_cast_of_a_call_inside_that_is_read_elsewhere_is_refused():
    body = """%l: bf16[T, 8] = linear(%x, @w, none)
    %c: f32[T, 8] = cast(%l, dtype="f32")
    %y: f32[T, 8] = relu(%c)
    %e: f32[T, 8] = exp(%c)"""
    text = forward(body, "%y, %e", "%x: bf16[T, 4]")
    _, report = after(Activation(), program(text, ["w [8, 4]"], "bf16"))
    assert report.near_misses == ("y: %c = cast(...) is read elsewhere too, by %e = exp(...)",)


def test_a_cast_of_an_input_may_be_read_elsewhere():
    """It is no part of the pattern, which begins at what the cast reads."""
    body = NORM.format(exponent=2.0) + "\n%e: f32[T, 16] = exp(%f)"
    lines, report = after(RecognizeRMSNorm(), program(forward(body, "%y, %e", "%x: bf16[T, 16]"), ["w [16]"]))
    assert report.matches == 1
    assert '%f: f32[T, 16] = cast(%x, dtype="f32")' in lines


def test_shared_calls_stay_for_their_other_readers():
    @rewrite(stage="fused", shared=True)
    class Shared:
        """``exp(a) - b``   ==>   ``neg(b - exp(a))``"""

        def pattern(self, a: Row, b: Row) -> Value:
            return ops.exp(a) - b

        def replacement(self, a: Value, b: Value) -> Value:
            return -(b - ops.exp(a))

        examples = (example(lambda a, b: ((e := ops.exp(a)) - b, e), a=ROW, b=ROW),)

    body = "%e: f32[T, 4] = exp(%x)\n%y: f32[T, 4] = sub(%e, %z)\n%t: f32[T, 4] = tanh(%e)"
    lines, report = after(Shared(), program(forward(body, "%y, %t")))
    assert report.matches == 1
    assert lines == [
        "%e: f32[T, 4] = exp(%x)",
        "%exp: f32[T, 4] = exp(%x)",
        "%sub: f32[T, 4] = sub(%z, %exp)",
        "%neg: f32[T, 4] = neg(%sub)",
        "%t: f32[T, 4] = tanh(%e)",
        "return %neg, %t",
    ]


# --- what is said


def test_a_landmark_that_is_left_is_told_with_the_reason_nearest_to_it():
    """Too little of the pattern for a near miss; but a reciprocal root has no other business here."""
    body = """%m: f32[T, 1] = amax(%x)
    %r: f32[T, 1] = rsqrt(%m)
    %y: f32[T, 4] = mul(%x, %r)"""
    _, report = after(RecognizeRMSNorm(), program(forward(body)))
    assert report.matches == 0
    assert report.near_misses[0].startswith("r: rsqrt is left: ")
    alone = "%y: f32[T, 4] = rsqrt(%x)"
    _, report = after(RecognizeRMSNorm(), program(forward(alone)))
    assert report.near_misses == ("y: rsqrt is left: nothing around it matches",)


def test_a_landmark_in_a_match_or_a_near_miss_is_not_told_again():
    for exponent, count in ((2.0, 0), (3.0, 1)):
        text = forward(NORM.format(exponent=exponent), inputs="%x: bf16[T, 16]")
        _, report = after(RecognizeRMSNorm(), program(text, ["w [16]"]))
        assert len(report.near_misses) == count


def test_what_hardly_begins_to_match_is_not_told():
    _, report = after(RecognizeRMSNorm(), program(forward("%y: f32[T, 4] = mul(%x, %z)")))
    assert report.sites == ()


class EqualCosts:
    """A cost model by which every call takes as long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def call_seconds(self, *call: Any) -> float:
        return self.seconds


@rewrite(stage="fused")
class Twice:
    """``neg(neg(x) * n)``   ==>   ``x * n``"""

    def pattern(self, x: Row, n: Number) -> Value:
        return -(-x * n)

    def replacement(self, x: Value, n: float) -> Value:
        return x * n

    def gain(self, m: Match, costs: SiteCosts) -> float:
        return costs.saved

    examples = (example(lambda x: -(-x * 3.0), x=ROW),)


def test_a_match_that_does_not_pay_is_left_with_the_price():
    shown = Twice.examples[0].program()
    assert run_pass(shown, Twice(), RunOptions(costs=EqualCosts(1e-6)))[1].matches == 1
    _, report = run_pass(shown, Twice(), RunOptions(costs=EqualCosts(-1e-6)))
    assert report.matches == 0
    assert report.near_misses[0].startswith("neg_1: it would cost 2 us")
    assert run_pass(shown, Twice())[1].matches == 1


def test_a_number_counts_as_the_pattern_wrote_it():
    shown = example(lambda x: -(-x * 3.0), x=ROW).program()
    assert statements(run_pass(shown, Twice())[0])[0] == "%mul_1: f32[T, 4] = mul(%x, 3.0)"


# --- weights


@rewrite(stage="fused")
class Stack:
    """``linear(x, v) + linear(y, w)``   ==>   both halves of one, of weights stacked"""

    def pattern(self, x: Float[Value, "T K"], v: Weight[Value, "N K"], w: Weight[Value, "M K"]) -> Value:
        return ops.concat(ops.linear(x, v, None), ops.linear(x, w, None), axis=1)

    def replacement(self, x: Value, v: Value, w: Value) -> Value:
        return ops.linear(x, recipes.concat(v, w, axis=0), None)

    examples = (
        example(
            lambda x, v, w: ops.concat(ops.linear(x, v, None), ops.linear(x, w, None), axis=1),
            x=ROW,
            v="weight f32[8, 4]",
            w="weight f32[6, 4]",
        ),
    )


def test_weights_are_made_of_weights_and_named_after_them():
    half = """%{0}: f32[T, 8] = linear(%x, @mlp.a_proj.weight, none)
    %{0}r: f32[T, 6] = linear(%x, @mlp.b_proj.weight, none)"""
    body = f"""{half.format("p")}
    %c: f32[T, 14] = concat(%p, %pr, axis=1)
    {half.format("q")}
    %d: f32[T, 14] = concat(%q, %qr, axis=1)
    %y: f32[T, 14] = add(%c, %d)"""
    before = program(forward(body), ["mlp.a_proj.weight [8, 4]", "mlp.b_proj.weight [6, 4]"])
    changed, report = run_pass(before, Stack())
    assert (report.matches, list(changed.weights)) == (2, ["mlp.a_b.weight"])
    assert changed.weights["mlp.a_b.weight"].type.sizes == (14, 4)


# --- what is wrong with the author's work


def test_a_rewrite_that_changes_numbers_is_refused_by_name_and_place():
    @rewrite(stage="fused")
    class Wrong:
        """``exp(x)``   ==>   ``tanh(x)``, which it is not"""

        def pattern(self, x: Row) -> Value:
            return ops.exp(x)

        def replacement(self, x: Value) -> Value:
            return ops.tanh(x)

        examples = (example(lambda x: ops.exp(x), x=ROW),)

    with pytest.raises(PassError, match=r"pass wrong \(exact\) changed results at e: relative error"):
        run_pass(program(forward("%e: f32[T, 4] = exp(%x)", "%e")), Wrong())


def test_a_rewrite_that_raises_is_named():
    @rewrite(stage="fused")
    class Halves:
        """``exp(x)``   ==>   the same, of rows of 4 alone"""

        def pattern(self, x: Row) -> Value:
            return ops.exp(x)

        def replacement(self, x: Value) -> Value:
            return {4: ops.exp}[x.shape[-1]](x)

        examples = (example(lambda x: ops.exp(x), x=ROW),)

    text = forward("%y: f32[T, 5] = exp(%x)", inputs="%x: f32[T, 5]")
    with pytest.raises(PassError, match="pass halves failed: KeyError: 5"):
        run_pass(program(text), Halves())


def test_a_match_has_its_names_and_no_others():
    seen: list[Match] = []

    @rewrite(stage="fused")
    class Looks:
        """``exp(x)``   ==>   ``exp(x)``, looking around"""

        def pattern(self, x: Float[Value, "T H"]) -> Value:
            return ops.exp(x)

        def when(self, m: Match) -> str | None:
            seen.append(m)
            return None

        def replacement(self, m: Match, x: Value, H: int) -> Value:
            assert H == m.H
            return ops.exp(x)

        examples = (example(lambda x: ops.exp(x), x=ROW),)

    assert (seen[0].H, str(seen[0].T), seen[0].x.name) == (4, "T", "x")
    assert [n.name for n in (*seen[0].outputs, *seen[0].inside)] == ["exp", "exp"]
    with pytest.raises(AttributeError, match="the match has no 'y'; it has T, H, x"):
        _ = seen[0].y


def test_a_size_that_only_an_absent_part_has_is_none():
    seen: list[int | None] = []

    @rewrite(stage="fused")
    class Biased:
        """``exp(x) + b``, or without   ==>   the same"""

        def pattern(self, x: Float[Value, "T H"], b: Weight[Value, "N"] | None) -> Value:
            return optional(ops.add, ops.exp(x), b)

        def replacement(self, x: Value, b: Value | None, N: int | None) -> Value:
            seen.append(N)
            return ops.exp(x) if b is None else ops.exp(x) + b

        examples = (
            example(lambda x: ops.exp(x), x=ROW),
            example(lambda x, b: ops.exp(x) + b, x=ROW, b="weight f32[4]"),
        )

    assert (seen[0], seen[-1]) == (None, 4)
    assert len(Biased.examples) == 2


def test_results_verify_after_every_rewrite():
    body = "%s: f32[T, 4] = add(%x, %z)\n%y: f32[T, 4] = sub(%s, %x)"
    changed, _ = run_pass(program(forward(body)), Exchange(), RunOptions("off"))
    verify(changed)
