"""Norms, rotary embedding and GELU are seen in their arithmetic, in any dtype, and near misses say why not."""

import pytest
from xllmc.passes.recognize_gelu import RecognizeGelu
from xllmc.passes.recognize_rms_norm import RecognizeRMSNorm
from xllmc.passes.recognize_rope import RecognizeRope

from tests.programs import after, program

NORM = """
func forward(%x: f32[T, 16]) -> (y) {{
  %p: f32[T, 16] = pow(%x, exponent={exponent})
  %m: f32[T, 1] = mean(%p)
  %a: f32[T, 1] = add(%m, 1e-06)
  %r: f32[T, 1] = rsqrt(%a)
  %n: f32[T, 16] = mul(%x, %r)
  %y: f32[T, 16] = mul({product})
  return %y
}}"""


@pytest.mark.parametrize("product", ["@w, %n", "%n, @w"])
def test_a_norm_in_float32_either_way_round(product):
    lines, report = after(RecognizeRMSNorm(), program(NORM.format(exponent=2.0, product=product), ["w [16]"]))
    assert lines == ["%rms_norm: f32[T, 16] = rms_norm(%x, @w, eps=1e-06)", "return %rms_norm"]
    assert (report.matches, report.near_misses, report.regions) == (1, (), 1)


def test_a_norm_in_bfloat16_with_casts_where_llama_has_them():
    text = """
    func forward(%x: bf16[T, 16]) -> (y) {
      %f: f32[T, 16] = cast(%x, dtype="f32")
      %p: f32[T, 16] = pow(%f, exponent=2.0)
      %m: f32[T, 1] = mean(%p)
      %a: f32[T, 1] = add(%m, 1e-06)
      %r: f32[T, 1] = rsqrt(%a)
      %n: f32[T, 16] = mul(%f, %r)
      %b: bf16[T, 16] = cast(%n, dtype="bf16")
      %y: bf16[T, 16] = mul(@w, %b)
      return %y
    }"""
    lines, _ = after(RecognizeRMSNorm(), program(text, ["w [16]"], "bf16"))
    assert lines[0] == "%rms_norm: bf16[T, 16] = rms_norm(%x, @w, eps=1e-06)"


def test_something_else_than_a_square_is_no_norm():
    _, report = after(RecognizeRMSNorm(), program(NORM.format(exponent=4.0, product="@w, %n"), ["w [16]"]))
    assert report.matches == 0
    assert report.near_misses == ("y: %p = pow(...) has exponent 4.0, not 2.0",)


ROPE = """
func forward(%x: f32[T, 2, 8], %positions: i32[T]) -> (y) {{
  %p: f32[T] = cast(%positions, dtype="f32")
  %q: f32[T, 1] = reshape(%p, shape=[T, 1])
  %f: f32[T, 4] = mul(%q, @inv)
  %ff: f32[T, 8] = concat(%f, %f, axis=1)
  %c: f32[T, 8] = cos(%ff)
  %s: f32[T, 8] = sin(%ff)
  %cs: f32[T, 8] = mul(%c, 1.5)
  %ss: f32[T, 8] = mul(%s, 1.5)
  %c1: f32[T, 1, 8] = reshape(%cs, shape=[T, 1, 8])
  %s1: f32[T, 1, 8] = reshape(%ss, shape=[T, 1, 8])
  %lo: f32[T, 2, {low}] = slice(%x, axis=2, start=0, stop={low})
  %hi: f32[T, 2, {high}] = slice(%x, axis=2, start={low}, stop=8)
  %ng: f32[T, 2, {high}] = neg(%hi)
  %rt: f32[T, 2, 8] = concat(%ng, %lo, axis=2)
  %a: f32[T, 2, 8] = mul(%x, %c1)
  %b: f32[T, 2, 8] = mul(%rt, %s1)
  %y: f32[T, 2, 8] = add(%a, %b)
  return %y
}}"""


def test_rotary_embedding_with_its_scale():
    lines, _ = after(RecognizeRope(), program(ROPE.format(low=4, high=4), ["inv [4]"]))
    assert lines == [
        "%rope_table: f32[T, 8] = rope_table(%positions, @inv, scale=1.5)",
        "%rope: f32[T, 2, 8] = rope(%x, %rope_table)",
        "return %rope",
    ]


def test_a_rotation_that_is_not_of_halves_is_a_near_miss():
    _, report = after(RecognizeRope(), program(ROPE.format(low=2, high=6), ["inv [4]"]))
    assert report.matches == 0
    assert report.near_misses == ("y: half is 4 in one place and 2 in another",)


def test_gpt2s_gelu():
    text = """
    func forward(%x: f32[T, 16]) -> (y) {
      %h: f32[T, 16] = mul(%x, 0.5)
      %c: f32[T, 16] = pow(%x, exponent=3.0)
      %k: f32[T, 16] = mul(%c, 0.044715)
      %a: f32[T, 16] = add(%x, %k)
      %m: f32[T, 16] = mul(%a, 0.7978845608028654)
      %t: f32[T, 16] = tanh(%m)
      %o: f32[T, 16] = add(%t, 1.0)
      %y: f32[T, 16] = mul(%h, %o)
      return %y
    }"""
    lines, _ = after(RecognizeGelu(), program(text))
    assert lines == ["%gelu_tanh: f32[T, 16] = gelu_tanh(%x)", "return %gelu_tanh"]
