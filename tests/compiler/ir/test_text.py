"""The text form says everything that the graph does, and reading it back gives the same graph."""

import pytest
from xllmc.compiler.ir.parse import GraphSyntaxError, parse_program
from xllmc.compiler.ir.text import diff_programs, print_program
from xllmc.compiler.ir.verify import verify
from xllmc.compiler.ops import OPS
from xllmc.runtime.artifact.reader import read_manifest

from tests.programs import FACTS, program

STAGES = ("traced", "canonical", "recognised", "fused", "lowered")


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_of_an_engine_parses_back(family, stage, engine_dir):
    engine = engine_dir(family, "bf16")
    text = (engine / read_manifest(engine).graphs[stage]).read_text()
    parsed = parse_program(text, OPS)
    verify(parsed)
    assert parsed.stage == stage
    assert print_program(parsed) == text


def test_values_of_every_kind_parse_back():
    text = """
    func forward(%x: f32[T, 16], %rows: i32[R], %kv: paged<0>f32[2, 4, 4], %slots: i32[T]) -> (y, state) {
      %a: f32[T, 2, 8] = reshape(%x, shape=[T, 2, 8])  // model.layers.0
      %b: f32[T, 2, 4] = slice(%a, axis=2, start=0, stop=4)
      %c: paged<0>f32[2, 4, 4] = kv_write(%kv, %b, %b, %slots)
      %d: f32[T, 16] = loop(%x, @w, body=(%0: f32[T, 16], %1: f32[16]) { %2: f32[T, 16] = mul(%0, %1); return %2 })
      %e: f32[T, 16] = add(%d, -1.5e-07)
      %f: f32[R, 16] = take_rows(%e, %rows)
      %g: (f32[R, 16], f32[R, 16]) = add_rms_norm(%f, %f, @w, eps=1e-06)
      %h: f32[R, 16] = get(%g, index=1)
      %i: f32[R, 8] = linear(%h, @m, none, activation="silu")
      return %i, %c
    }"""
    made = program(text, ["w [16]", "m [8, 16]"])
    printed = print_program(made)
    assert print_program(parse_program(printed, OPS)) == printed
    assert "// model.layers.0" in printed
    assert "-1.5e-07" in printed


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("%y: f32[T, 4] = conv(%x)", "unknown op 'conv'"),
        ("%y: f32[T, 4] = neg(%z)", "%z is used before it is defined"),
        ("%y: f32[T, 4] = mul(%x, @w)", "weight @w is not declared"),
        ("%y: f33[T, 4] = neg(%x)", "not a type"),
        ("%y: f32[T, 4] neg(%x)", "expected '='"),
    ],
)
def test_a_syntax_error_names_the_line(statement, reason):
    text = f"program traced {FACTS}\nfunc forward(%x: f32[T, 4]) -> (y) {{\n  {statement}\n  return %y\n}}"
    with pytest.raises((GraphSyntaxError, ValueError), match=reason) as caught:
        parse_program(text, OPS)
    if isinstance(caught.value, GraphSyntaxError):
        assert str(caught.value).startswith("line 3:")


def test_a_diff_shows_what_changed():
    before = program("func forward(%x: f32[T, 4]) -> (y) {\n %y: f32[T, 4] = neg(%x)\n return %y\n}")
    after = program("func forward(%x: f32[T, 4]) -> (y) {\n %y: f32[T, 4] = exp(%x)\n return %y\n}")
    assert diff_programs(before, before) == ""
    changed = [
        line for line in diff_programs(before, after).splitlines() if line[:1] in "+-" and line[:3] not in "+++---"
    ]
    assert [line[0] for line in changed] == ["-", "+"]
    assert "neg" in changed[0] and "exp" in changed[1]
