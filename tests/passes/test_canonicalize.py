"""Canonicalisation: what does nothing goes, equal things are computed once."""

from xllmc.passes.canonicalize import Canonicalize

from tests.programs import after, program


def test_what_does_nothing_goes():
    before = program("""
    func forward(%x: f32[T, 4]) -> (y) {
      %a: f32[T, 4] = cast(%x, dtype="f32")
      %b: f32[T, 4] = mul(%a, 1.0)
      %c: f32[T, 2, 2] = reshape(%b, shape=[T, 2, 2])
      %d: f32[T, 4] = reshape(%c, shape=[T, 4])
      %e: f32[T, 4] = exp(%d)
      %f: f32[T, 4] = tanh(%d)
      return %e
    }""")
    lines, report = after(Canonicalize(), before)
    assert lines == ["%e: f32[T, 4] = exp(%x)", "return %e"]
    assert report.matches == 4  # the cast, the product, one reshape into the other, and that into nothing


def test_equal_calls_are_made_once():
    before = program("""
    func forward(%x: f32[T, 4]) -> (y) {
      %a: f32[T, 4] = exp(%x)
      %b: f32[T, 4] = exp(%x)
      %c: f32[T, 4] = add(%a, %b)
      return %c
    }""")
    assert after(Canonicalize(), before)[0] == [
        "%a: f32[T, 4] = exp(%x)",
        "%c: f32[T, 4] = add(%a, %a)",
        "return %c",
    ]


def test_a_change_of_state_stays_though_nothing_reads_it():
    text = """
    func forward(%k: f32[T, 2, 4], %kv: paged<0>f32[2, 4, 4], %slots: i32[T]) -> (k) {
      %w: paged<0>f32[2, 4, 4] = kv_write(%kv, %k, %k, %slots)
      %y: f32[T, 2, 4] = exp(%k)
      return %y
    }"""
    lines, _ = after(Canonicalize(), program(text))
    assert any("kv_write" in line for line in lines)
