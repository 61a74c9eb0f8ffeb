"""What becomes one loop, and what keeps values apart."""

import re

from xllmc.compiler.pipeline.run import run_pass
from xllmc.passes.group_loops import GroupLoops

from tests.programs import after, program

T16 = "%x: f32[T, 16]"


def grouped(body: str, results: str, inputs: str = T16, weights: tuple[str, ...] = ()) -> list[str]:
    """Statements after grouping; loops as the ops of their bodies, without casts."""
    names = ", ".join(f"r{i}" for i in range(results.count("%")))
    lines, _ = after(
        GroupLoops(), program(f"func forward({inputs}) -> ({names}) {{{body}\n return {results} }}", weights)
    )
    return [shortened(line) for line in lines]


def shortened(line: str) -> str:
    if " = loop(" not in line:
        return line
    name, operands = re.match(r"(%\w+): .* = loop\((.*), body=", line).groups()
    ops = re.findall(r"= (\w+)\(", line.split("body=")[1])
    returned = line.split("return ")[1].count("%")
    return f"{name} = loop({operands}): {' '.join(o for o in ops if o != 'cast')} -> {returned}"


def test_values_that_several_read_are_results_of_one_loop():
    body = """
      %a: f32[T, 16] = exp(%x)
      %b: f32[T, 16] = add(%a, %x)
      %y: f32[T, 8] = linear(%a, @w, none)
      %z: f32[T, 8] = linear(%b, @w, none)"""
    assert grouped(body, "%y, %z", weights=("w [8, 16]",)) == [
        "%loop = loop(%x): exp add -> 2",
        "%get: f32[T, 16] = get(%loop, index=0)",
        "%get_1: f32[T, 16] = get(%loop, index=1)",
        "%y: f32[T, 8] = linear(%get, @w, none)",
        "%z: f32[T, 8] = linear(%get_1, @w, none)",
        "return %y, %z",
    ]


def test_readers_of_one_value_share_a_loop_though_neither_reads_the_other():
    body = """
      %a: f32[T, 16] = exp(%x)
      %n: f32[T, 16] = rms_norm(%x, @g, eps=1e-06)"""
    lines = grouped(body, "%a, %n", weights=("g [16]",))
    assert lines[0] == "%loop = loop(%x, @g): exp mul mean add rsqrt mul mul -> 2"


def test_a_path_through_another_kernel_keeps_two_loops_apart():
    body = """
      %a: f32[T, 16] = exp(%x)
      %y: f32[T, 16] = linear(%a, @w, none)
      %b: f32[T, 16] = add(%a, %y)"""
    assert [line.split(" = ")[-1] for line in grouped(body, "%b", weights=("w [16, 16]",))[:3]] == [
        "loop(%x): exp -> 1",
        "linear(%loop, @w, none)",
        "loop(%loop, %y): add -> 1",
    ]


def test_two_loops_never_wait_for_each_other():
    """c could join e, and a could join f; both at once would be a circle."""
    body = """
      %a: f32[T, 16] = exp(%x)
      %b: f32[T, 16] = linear(%a, @w, none)
      %c: f32[T, 16] = exp(%y)
      %d: f32[T, 16] = linear(%c, @w, none)
      %e: f32[T, 16] = add(%c, %b)
      %f: f32[T, 16] = add(%a, %d)"""
    lines = grouped(body, "%e, %f", f"{T16}, %y: f32[T, 16]", ("w [16, 16]",))
    assert sum("loop(" in line for line in lines) == 3


def test_a_group_moves_behind_what_it_reads():
    """The sum's other operand is computed between the two members, and the first member's reader before the second."""
    body = """
      %a: f32[T, 16] = exp(%x)
      %y: f32[T, 8] = linear(%a, @w, none)
      %z: f32[T, 16] = linear(%x, @v, none)
      %b: f32[T, 16] = mul(%a, %z)"""
    lines = grouped(body, "%y, %b", weights=("w [8, 16]", "v [16, 16]"))
    assert [line.split(" = ")[-1] for line in lines[:5]] == [
        "linear(%x, @v, none)",
        "loop(%x, %z): exp mul -> 2",
        "get(%loop, index=0)",
        "get(%loop, index=1)",
        "linear(%get, @w, none)",
    ]


def test_a_layer_norm_without_weights_is_one_loop():
    body = """
      %m: f32[T, 1] = mean(%x)
      %c: f32[T, 16] = sub(%x, %m)
      %s: f32[T, 16] = mul(%c, %c)
      %v: f32[T, 1] = mean(%s)
      %e: f32[T, 1] = add(%v, 1e-05)
      %r: f32[T, 1] = rsqrt(%e)
      %y: f32[T, 16] = mul(%c, %r)"""
    assert grouped(body, "%y")[:-1] == ["%loop = loop(%x): mean sub mul mean add rsqrt mul -> 1"]


def test_norms_join_what_is_around_them_and_alone_keep_their_kernels():
    body = """
      %n: f32[T, 16] = rms_norm(%x, @g, eps=1e-06)
      %both: (f32[T, 16], f32[T, 16]) = add_rms_norm(%n, %r, @h, eps=1e-06)
      %s: f32[T, 16] = get(%both, index=0)
      %y: f32[T, 16] = get(%both, index=1)"""
    lines = grouped(body, "%s, %y", f"{T16}, %r: f32[T, 16]", ("g [16]", "h [16]"))
    assert lines[0] == "%loop = loop(%x, @g, %r, @h): mul mean add rsqrt mul mul add mul mean add rsqrt mul mul -> 2"
    alone = "\n %n: f32[T, 16] = rms_norm(%x, @g, eps=1e-06)"
    assert grouped(alone, "%n", weights=("g [16]",))[0].endswith("rms_norm(%x, @g, eps=1e-06)")


def test_slices_and_concatenations_along_a_row_are_indices_of_a_loop():
    body = """
      %low: f32[T, 2, 8] = slice(%x, axis=2, start=0, stop=8)
      %high: f32[T, 2, 8] = slice(%x, axis=2, start=8, stop=16)
      %n: f32[T, 2, 8] = neg(%high)
      %c: f32[T, 2, 16] = concat(%n, %low, axis=2)
      %y: f32[T, 2, 16] = mul(%c, %x)"""
    lines = grouped(body, "%y", "%x: f32[T, 2, 16]")
    assert lines[:-1] == ["%loop = loop(%x): slice slice neg concat mul -> 1"]


def test_what_only_moves_stays_a_copy():
    body = """
      %low: f32[T, 8] = slice(%x, axis=1, start=0, stop=8)
      %high: f32[T, 8] = slice(%x, axis=1, start=8, stop=16)
      %c: f32[T, 16] = concat(%high, %low, axis=1)"""
    assert not any("loop" in line for line in grouped(body, "%c"))


def test_a_view_that_keeps_rows_does_not_part_a_chain():
    body = """
      %p: f32[T] = cast(%i, dtype="f32")
      %r: f32[T, 1] = reshape(%p, shape=[T, 1])
      %s: f32[T, 1] = exp(%r)
      %y: f32[T, 16] = mul(%x, %s)"""
    lines = grouped(body, "%y, %r", f"{T16}, %i: i32[T]")
    assert lines[0].startswith("%loop = loop(%i, %x): ") and lines[0].endswith("reshape exp mul -> 2")
    assert "%reshape: f32[T, 1] = reshape(%get, shape=[T, 1])" in lines


def test_a_view_of_an_outside_value_is_not_copied_for_its_other_readers():
    body = """
      %r: f32[T, 1, 16] = reshape(%x, shape=[T, 1, 16])
      %y: f32[T, 1, 16] = exp(%r)
      %z: f32[T, 1, 8] = linear(%r, @w, none)"""
    lines = grouped(body, "%y, %z", weights=("w [8, 16]",))
    assert "%loop = loop(%x): reshape exp -> 1" in lines
    assert "%r: f32[T, 1, 16] = reshape(%x, shape=[T, 1, 16])" in lines


def test_a_mean_over_tokens_is_no_loop():
    body = """
      %p: f32[T] = cast(%i, dtype="f32")
      %m: f32[1] = mean(%p)
      %y: f32[T] = mul(%p, %m)"""
    assert any(" = mean(" in line for line in grouped(body, "%y", "%i: i32[T]"))


def test_only_what_is_computed_with_is_widened():
    body = """
      %q: bf16[T, 16] = slice(%x, axis=1, start=0, stop=16)
      %k: bf16[T, 32] = slice(%x, axis=1, start=16, stop=48)
      %s: bf16[T, 16] = mul(%q, 0.25)
      %f: f32[T, 16] = cast(%s, dtype="f32")
      %g: f32[T, 16] = exp(%f)"""
    lines, _ = after(
        GroupLoops(), program(f"func forward(%x: bf16[T, 48]) -> (s, k, g) {{{body}\n return %s, %k, %g }}")
    )
    (loop,) = (line for line in lines if " = loop(" in line)
    assert loop.endswith(
        "body=(%0: bf16[T, 48]) { %1: bf16[T, 16] = slice(%0, axis=1, start=0, stop=16); "
        '%2: bf16[T, 32] = slice(%0, axis=1, start=16, stop=48); %3: f32[T, 16] = cast(%1, dtype="f32"); '
        '%4: f32[T, 16] = mul(%3, 0.25); %5: f32[T, 16] = exp(%4); %6: bf16[T, 16] = cast(%4, dtype="bf16"); '
        "return %2, %6, %5 })"
    )


def test_other_rows_are_another_loop():
    body = """
      %a: f32[T, 16] = exp(%x)
      %h: f32[T, 2, 8] = reshape(%a, shape=[T, 2, 8])
      %b: f32[T, 2, 8] = exp(%h)"""
    assert sum("loop(" in line for line in grouped(body, "%b")) == 2


def test_arithmetic_on_a_row_for_all_is_done_in_every_row():
    body = """
      %u: f32[16] = sub(1.0, @g)
      %y: f32[T, 16] = mul(%x, %u)"""
    body = body.replace("sub(1.0, @g)", "mul(@g, 2.0)")
    assert grouped(body, "%y", weights=("g [16]",))[:-1] == ["%loop = loop(@g, %x): mul mul -> 1"]
    both = grouped(body, "%y, %u", weights=("g [16]",))
    assert sum("loop(" in line for line in both) == 2


def test_what_nothing_reads_makes_no_loop():
    _, report = run_pass(
        program(f"func forward({T16}) -> (y) {{ %a: f32[T, 16] = exp(%x)\n return %x }}"), GroupLoops()
    )
    assert report.matches == 0
