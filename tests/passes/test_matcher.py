"""Patterns: every way of matching is found, and where there is none the reason says what stood in the way."""

from collections.abc import Callable, Sequence
from math import inf, pi, sqrt
from typing import Any, NamedTuple

import pytest
from torch import fx
from xllmc.compiler.ir.text import print_value
from xllmc.passes.api import Attribute, Float, Int, Number, OneOf, Size, State, Tensor, Value, Weight, ops, optional
from xllmc.passes.authoring.matcher import Attempt, Matcher
from xllmc.passes.authoring.pattern import build_pattern

from tests.programs import program

WEIGHTS = ("w [4, 4]", "b [4]", "v [4, 4]", "c [4]")


class Found(NamedTuple):
    ways: list[dict[str, Any]]
    """Names to values as text prints them, numbers and sizes as they are."""
    reason: str

    @property
    def only(self) -> dict[str, Any]:
        (way,) = self.ways
        return way


def look(pattern: Callable[..., Any], body: str, through: Sequence[str] = ()) -> Found:
    """All the ways in which the pattern's root is the last statement of ``body``, which may read %x, %z, %i and %kv."""
    lines = "\n".join(f"  {line}" for line in body.splitlines())
    inputs = "%x: f32[T, 4], %z: f32[T, 4], %i: i32[T], %kv: paged<0>f32[2, 4, 4]"
    made = program(f"func forward({inputs}) -> (y) {{\n{lines}\n  return %y\n}}", WEIGHTS)
    attempt = Attempt()
    matcher = Matcher(build_pattern(pattern, None), tuple(through))
    ways = [
        {name: print_value(v) if isinstance(v, fx.Node) else v for name, v in bound.items() if isinstance(name, str)}
        for bound in matcher.matches(made.forward.outputs[0], attempt)
    ]
    return Found(ways, attempt.reason)


def test_one_name_is_one_value():
    def pattern(self, a: Float[Value, "..."]) -> Value:
        return ops.exp(a) - a

    assert look(pattern, "%e: f32[T, 4] = exp(%x)\n%y: f32[T, 4] = sub(%e, %x)").only == {"a": "%x"}
    found = look(pattern, "%e: f32[T, 4] = exp(%x)\n%y: f32[T, 4] = sub(%e, %z)")
    assert found == ([], "%z is not a, which is %x")


def test_one_call_is_one_call():
    def pattern(self, a: Float[Value, "..."]) -> Value:
        e = ops.exp(a)
        return ops.neg(e) - e

    body = "%e: f32[T, 4] = exp(%x)\n%f: f32[T, 4] = exp(%x)\n%n: f32[T, 4] = neg(%e)\n%y: f32[T, 4] = sub(%n, {})"
    assert look(pattern, body.format("%e")).ways
    assert look(pattern, body.format("%f")) == ([], "%f = exp(...) is not %e = exp(...) again")


def test_a_choice_is_taken_back_when_it_fails_later():
    """add(a, b) binds a to x first; only the other way round does the second factor agree."""

    def pattern(self, a: Float[Value, "..."], b: Float[Value, "..."]) -> Value:
        return (a + b) * ops.exp(b)

    body = "%s: f32[T, 4] = add(%x, %z)\n%e: f32[T, 4] = exp(%x)\n%y: f32[T, 4] = mul(%s, %e)"
    assert look(pattern, body).only == {"a": "%z", "b": "%x"}


def test_every_order_of_operands_that_commute_is_a_way():
    def pattern(self, a: Float[Value, "..."], b: Float[Value, "..."]) -> Value:
        return a + b

    assert look(pattern, "%y: f32[T, 4] = add(%x, %z)").ways == [{"a": "%x", "b": "%z"}, {"a": "%z", "b": "%x"}]
    assert len(look(pattern, "%y: f32[T, 4] = add(%x, %x)").ways) == 1


def test_order_matters_where_an_op_does_not_commute():
    def pattern(self, a: Float[Value, "..."], b: Float[Value, "..."]) -> Value:
        return ops.exp(a) - b

    body = "%e: f32[T, 4] = exp(%x)\n%y: f32[T, 4] = sub({})"
    assert len(look(pattern, body.format("%e, %z")).ways) == 1
    assert look(pattern, body.format("%z, %e")) == ([], "%z is not exp")


def test_nested_orders_are_all_tried():
    def pattern(self, a: Float[Value, "..."], b: Float[Value, "..."]) -> Value:
        return (ops.exp(a) * b) * (ops.tanh(b) + a)

    body = """%e: f32[T, 4] = exp(%x)
%p: f32[T, 4] = mul(%z, %e)
%t: f32[T, 4] = tanh(%z)
%s: f32[T, 4] = add(%x, %t)
%y: f32[T, 4] = mul(%s, %p)"""
    assert look(pattern, body).only == {"a": "%x", "b": "%z"}


# --- looking through


CASTS = '%h: bf16[T, 4] = cast(%x, dtype="bf16")\n%f: f32[T, 4] = cast(%h, dtype="f32")\n%y: f32[T, 4] = exp(%f)'


def test_casts_are_looked_through_to_the_end_and_only_where_allowed():
    def pattern(self, a: Float[Value, "..."]) -> Value:
        return ops.exp(a)

    assert [way["a"] for way in look(pattern, CASTS, ["cast"]).ways] == ["%x", "%h", "%f"]
    assert look(pattern, CASTS).only == {"a": "%f"}
    assert look(pattern, CASTS, ["reshape"]).only == {"a": "%f"}


def test_a_cast_that_the_pattern_names_is_not_looked_through():
    def pattern(self, a: Float[Value, "..."]) -> Value:
        return ops.exp(ops.cast(a, dtype="f32"))

    assert [way["a"] for way in look(pattern, CASTS, ["cast"]).ways] == ["%x", "%h"]
    assert look(pattern, CASTS).only == {"a": "%h"}


def test_what_is_nearer_is_taken_where_the_end_does_not_fit():
    def pattern(self, a: Float[Value, "T H"]) -> Value:
        return ops.exp(a) * a

    body = '%h: bf16[T, 4] = cast(%x, dtype="bf16")\n%e: bf16[T, 4] = exp(%h)\n%y: bf16[T, 4] = mul(%e, %h)'
    assert [way["a"] for way in look(pattern, body, ["cast"]).ways] == ["%x", "%h"]

    def shaped(self, a: Float[Value, "T 2 2"]) -> Value:
        return ops.exp(a)

    body = "%r: f32[T, 2, 2] = reshape(%x, shape=[T, 2, 2])\n%y: f32[T, 2, 2] = exp(%r)"
    found = look(shaped, body, ["reshape"])
    assert found.only == {"a": "%r", "T": found.only["T"]}


def test_a_match_begins_behind_the_cast_of_its_root():
    def pattern(self, a: Float[Value, "..."]) -> Value:
        return ops.exp(a)

    body = '%e: f32[T, 4] = exp(%x)\n%y: bf16[T, 4] = cast(%e, dtype="bf16")'
    assert look(pattern, body, ["cast"]).only == {"a": "%x"}
    assert look(pattern, body).ways == []


# --- constants and attributes


@pytest.mark.parametrize(
    ("wanted", "written", "same"),
    [
        (2.0, "2.0", True),
        (2, "2.0", True),
        (2.0, "2", True),
        (2, "3.0", False),
        (1000000, "1000001", False),
        (sqrt(2 / pi), "0.79788456", True),
        (sqrt(2 / pi), "0.7979", False),
        (inf, "inf", True),
        (0.0, "1e-09", False),
    ],
)
def test_constants_are_equal_by_value_and_floats_nearly(wanted, written, same):
    def pattern(self, a: Float[Value, "..."]) -> Value:
        return a * wanted

    found = look(pattern, f"%y: f32[T, 4] = mul(%x, {written})")
    assert bool(found.ways) == same
    if not same:
        assert "is not" in found.reason


def test_attributes_are_as_said_and_others_as_by_default():
    def cubed(self, a: Float[Value, "..."]) -> Value:
        return ops.pow(a, exponent=3.0)

    assert look(cubed, "%y: f32[T, 4] = pow(%x, exponent=3.0)").ways
    found = look(cubed, "%y: f32[T, 4] = pow(%x, exponent=2.0)")
    assert found == ([], "%y = pow(...) has exponent 2.0, not 3.0")

    def plain(self, a: Float[Value, "..."], w: Weight[Value, "N K"]) -> Value:
        return ops.linear(a, w, None)

    assert look(plain, "%y: f32[T, 4] = linear(%x, @w, none)").ways
    assert look(plain, '%y: f32[T, 4] = linear(%x, @w, none, activation="none")').ways
    found = look(plain, '%y: f32[T, 4] = linear(%x, @w, none, activation="relu")')
    assert found == ([], '%y = linear(...) has activation "relu", not "none"')


def test_numbers_and_attributes_are_taken():
    def pattern(self, a: Float[Value, "..."], n: Number, e: Number) -> Value:
        return ops.pow(a, exponent=e) + n

    found = look(pattern, "%p: f32[T, 4] = pow(%x, exponent=3.0)\n%y: f32[T, 4] = add(%p, 0.25)")
    assert found.only == {"a": "%x", "n": 0.25, "e": 3.0}
    found = look(pattern, "%p: f32[T, 4] = pow(%x, exponent=3.0)\n%y: f32[T, 4] = add(%p, %z)")
    assert found == ([], "%z is not a number (n)")


def test_one_number_is_one_number():
    def pattern(self, a: Float[Value, "..."], n: Number) -> Value:
        return ops.pow(a, exponent=n) * n

    body = "%p: f32[T, 4] = pow(%x, exponent=3.0)\n%y: f32[T, 4] = mul(%p, {})"
    assert look(pattern, body.format("3.0")).only["n"] == 3.0
    assert look(pattern, body.format("4.0")) == ([], "n is 3.0 in one place and 4.0 in another")


def test_an_attribute_may_be_anything():
    def pattern(self, a: Float[Value, "..."], axes: Attribute) -> Value:
        return ops.permute(a, axes=axes)

    assert look(pattern, "%y: f32[4, T] = permute(%x, axes=[1, 0])").only == {"a": "%x", "axes": (1, 0)}


def test_one_of_several_ops():
    def pattern(self, a: Float[Value, "..."], b: Float[Value, "..."], f: OneOf[str, "silu relu tanh"]) -> Value:
        return ops[f](a) - ops[f](b)

    body = "%s: f32[T, 4] = {}(%x)\n%r: f32[T, 4] = {}(%z)\n%y: f32[T, 4] = sub(%s, %r)"
    assert look(pattern, body.format("relu", "relu")).only == {"a": "%x", "b": "%z", "f": "relu"}
    assert look(pattern, body.format("tanh", "relu")) == ([], "%r = relu(...) is not tanh")
    assert look(pattern, body.format("exp", "relu")) == ([], "%s = exp(...) is not silu or relu or tanh")


def test_one_of_several_words_in_an_attribute():
    def pattern(self, a: Float[Value, "..."], w: Weight[Value, "N K"], f: OneOf[str, "silu relu"]) -> Value:
        return ops.linear(a, w, None, activation=f)

    body = '%y: f32[T, 4] = linear(%x, @w, none, activation="{}")'
    assert look(pattern, body.format("relu")).only["f"] == "relu"
    assert look(pattern, body.format("tanh")) == ([], '"tanh" is not a word (f)')


def test_another_number_of_operands_is_another_call():
    def pattern(self, a: Float[Value, "..."], b: Float[Value, "..."]) -> Value:
        return ops.concat(a, b, axis=1)

    assert look(pattern, "%y: f32[T, 8] = concat(%x, %z, axis=1)").ways
    found = look(pattern, "%y: f32[T, 12] = concat(%x, %z, %x, axis=1)")
    assert found == ([], "%y = concat(...) has 3 operands, not 2")


# --- parts that may be absent


def test_an_optional_part_is_there_or_its_parameters_have_defaults():
    def pattern(self, a: Float[Value, "..."], scale: Number = 1.0) -> Value:
        return ops.exp(optional(ops.mul, ops.neg(a), scale))

    body = "%n: f32[T, 4] = neg(%x)\n%m: f32[T, 4] = mul(%n, 2.5)\n%y: f32[T, 4] = exp({})"
    assert look(pattern, body.format("%m")).only == {"a": "%x", "scale": 2.5}
    assert look(pattern, body.format("%n")).only == {"a": "%x", "scale": 1.0}


def test_an_optional_part_with_a_value_leaves_none():
    def pattern(self, a: Float[Value, "T H"], b: Float[Value, "T H"] | None) -> Value:
        return ops.exp(optional(ops.add, ops.neg(a), b))

    body = "%n: f32[T, 4] = neg(%x)\n%m: f32[T, 4] = add(%z, %n)\n%y: f32[T, 4] = exp({})"
    assert look(pattern, body.format("%m")).only["b"] == "%z"
    assert look(pattern, body.format("%n")).only["b"] is None


TWO = """%n: f32[T, 4] = neg(%x)
%s: f32[T, 4] = mul(%n, {})
%t: f32[T, 4] = tanh(%x)
%u: f32[T, 4] = mul(%t, {})
%y: f32[T, 4] = sub({}, {})"""


@pytest.mark.parametrize(
    ("one", "other", "left", "right", "scale"),
    [
        (2.0, 2.0, "%s", "%u", 2.0),
        (2.0, 2.0, "%n", "%t", 1.0),
        (2.0, 2.0, "%s", "%t", None),
        (2.0, 2.0, "%n", "%u", None),
        (2.0, 3.0, "%s", "%u", None),
        (1.0, 2.0, "%s", "%t", 1.0),
    ],
)
def test_optional_parts_in_two_places_agree(one, other, left, right, scale):
    def pattern(self, a: Float[Value, "..."], scale: Number = 1.0) -> Value:
        return optional(ops.mul, ops.neg(a), scale) - optional(ops.mul, ops.tanh(a), scale)

    found = look(pattern, TWO.format(one, other, left, right))
    assert [way["scale"] for way in found.ways] == ([] if scale is None else [scale])


def test_an_optional_part_read_twice_is_the_same_in_both():
    def pattern(self, a: Float[Value, "..."]) -> Value:
        part = optional(ops.relu, ops.neg(a))
        return ops.exp(part) - part

    body = """%n: f32[T, 4] = neg(%x)
%r: f32[T, 4] = relu(%n)
%e: f32[T, 4] = exp({})
%y: f32[T, 4] = sub(%e, {})"""
    assert look(pattern, body.format("%n", "%n")).ways
    assert look(pattern, body.format("%r", "%r")).ways
    assert look(pattern, body.format("%r", "%n")).ways == []
    assert look(pattern, body.format("%n", "%r")).ways == []


def test_optional_parts_stand_in_each_other():
    def pattern(self, a: Float[Value, "..."], n: Number = 0.0, m: Number = 1.0) -> Value:
        return optional(ops.mul, optional(ops.add, ops.neg(a), n), m)

    body = "%n: f32[T, 4] = neg(%x)\n%s: f32[T, 4] = add(%n, 5.0)\n%y: f32[T, 4] = {}"
    assert look(pattern, body.format("mul(%s, 2.0)")).only == {"a": "%x", "n": 5.0, "m": 2.0}
    assert look(pattern, body.format("mul(%n, 2.0)")).only == {"a": "%x", "n": 0.0, "m": 2.0}
    assert look(pattern, body.format("add(%n, 5.0)")).only == {"a": "%x", "n": 5.0, "m": 1.0}
    assert look(pattern, body.format("neg(%x)")).only == {"a": "%x", "n": 0.0, "m": 1.0}


def test_a_weight_that_may_be_none():
    def pattern(
        self, a: Float[Value, "..."], w: Weight[Value, "N K"], v: Weight[Value, "N K"], b: Weight[Value, "N"] | None
    ) -> Value:
        return ops.linear(a, w, b) - ops.linear(a, v, b)

    body = "%p: f32[T, 4] = linear(%x, @w, {})\n%q: f32[T, 4] = linear(%x, @v, {})\n%y: f32[T, 4] = sub(%p, %q)"
    assert look(pattern, body.format("@b", "@b")).only["b"] == "@b"
    assert look(pattern, body.format("none", "none")).only["b"] is None
    assert look(pattern, body.format("@b", "none")) == ([], "there is no b")
    assert look(pattern, body.format("none", "@b")) == ([], "@b is not b, which is none")
    assert look(pattern, body.format("@b", "@c")) == ([], "@c is not b, which is @b")


# --- kinds and sizes


def test_kinds():
    def floats(self, a: Float[Value, "..."]) -> Value:
        return ops.cast(a, dtype="f32")

    def ints(self, a: Int[Value, "..."]) -> Value:
        return ops.cast(a, dtype="f32")

    def tensors(self, a: Tensor[Value, "..."]) -> Value:
        return ops.cast(a, dtype="f32")

    def weights(self, a: Weight[Value, "..."]) -> Value:
        return ops.cast(a, dtype="f32")

    of_float, of_int, of_weight = (
        "%y: f32[T, 4] = cast(%x, dtype=\"f32\")",
        "%y: f32[T] = cast(%i, dtype=\"f32\")",
        "%y: f32[4] = cast(@b, dtype=\"f32\")",
    )  # fmt: skip
    found = {
        pattern.__name__: [bool(look(pattern, body).ways) for body in (of_float, of_int, of_weight)]
        for pattern in (floats, ints, tensors, weights)
    }
    assert found == {
        "floats": [True, False, True],
        "ints": [False, True, False],
        "tensors": [True, True, True],
        "weights": [False, False, True],
    }
    assert look(ints, of_float).reason == "%x is not a: it is f32[T, 4], not of ints"
    assert look(weights, of_float).reason == "%x is not a: it is computed, not a weight"


def test_states():
    def pattern(self, s: State, k: Float[Value, "T G D"], slots: Int[Value, "T"]) -> Value:
        return ops.kv_write(s, k, k, slots)

    body = "%k: f32[T, 2, 4] = {}\n%y: paged<0>f32[2, 4, 4] = kv_write(%kv, %k, %k, %i)"
    wide = "%c: f32[T, 8] = concat(%x, %z, axis=1)\n"
    found = look(pattern, wide + body.format("reshape(%c, shape=[T, 2, 4])"))
    assert (found.only["s"], found.only["G"], found.only["D"]) == ("%kv", 2, 4)

    def tensor(self, s: State) -> Value:
        return ops.exp(s)

    assert look(tensor, "%y: f32[T, 4] = exp(%x)").reason == "%x is not s: it is f32[T, 4], not a state"


def test_equal_names_are_equal_sizes():
    def pattern(self, a: Float[Value, "T H"], w: Weight[Value, "H H"], b: Weight[Value, "H"]) -> Value:
        return ops.linear(a, w, b)

    assert look(pattern, "%y: f32[T, 4] = linear(%x, @w, @b)").only["H"] == 4

    def other(self, a: Float[Value, "T H"], b: Float[Value, "T H"]) -> Value:
        return a - b

    narrow = "%m: f32[T, 1] = mean(%z)\n%y: f32[T, 4] = sub(%x, %m)"
    assert look(other, narrow) == ([], "%m = mean(...) is not b: H is 4, and f32[T, 1] has 1")


def test_sizes_are_tied_to_attributes_either_way_round():
    def pattern(self, a: Float[Value, "T D"], half: Size, D: Size) -> Value:
        return ops.concat(ops.slice(a, axis=1, start=half, stop=D), ops.slice(a, axis=1, start=0, stop=half), axis=1)

    body = """%h: f32[T, {0}] = slice(%x, axis=1, start={1}, stop={2})
%l: f32[T, {1}] = slice(%x, axis=1, start=0, stop={1})
%y: f32[T, {3}] = concat(%h, %l, axis=1)"""
    found = look(pattern, body.format(3, 1, 4, 4))
    assert (found.only["half"], found.only["D"]) == (1, 4)
    assert look(pattern, body.format(2, 1, 3, 3)) == ([], "%x is not a: D is 3, and f32[T, 4] has 4")


@pytest.mark.parametrize(
    ("dims", "fits"),
    [("T 4", True), ("T 5", False), ("... 4", True), ("... T 4", True), ("4", False), ("A B C", False), ("...", True)],
)
def test_axes(dims, fits):
    def pattern(self, a: Float[Value, dims]) -> Value:
        return ops.exp(a)

    found = look(pattern, "%y: f32[T, 4] = exp(%x)")
    assert bool(found.ways) == fits
    assert fits or "f32[T, 4]" in found.reason


def test_a_size_that_follows_the_step_is_one_too():
    def pattern(self, a: Float[Value, "T H"], i: Int[Value, "T"]) -> Value:
        return ops.take_rows(a, i)

    assert str(look(pattern, "%y: f32[T, 4] = take_rows(%x, %i)").only["T"]) == "T"


# --- reasons


def test_the_reason_is_that_of_the_way_that_went_furthest():
    def pattern(self, a: Float[Value, "..."]) -> Value:
        return ops.exp(ops.tanh(ops.neg(a))) + ops.relu(a)

    deep = """%n: f32[T, 4] = abs(%x)
%t: f32[T, 4] = tanh(%n)
%e: f32[T, 4] = exp(%t)
%r: f32[T, 4] = relu(%x)
%y: f32[T, 4] = add(%r, %e)"""
    assert look(pattern, deep) == ([], "%n = abs(...) is not neg")
