"""Rewrites of several results, and of states: where the replacement stands, and what it must not step over."""

import pytest
from xllmc.compiler.pipeline.run import run_pass
from xllmc.passes.api import Float, Int, Number, Size, State, Value, Values, Weight, example, ops, rewrite
from xllmc.passes.fuse_add_rms_norm import FuseAddRMSNorm
from xllmc.passes.fuse_qkv_write import FuseQKVWrite

from tests.passes.writing import ROW, Row, forward
from tests.programs import after, program, statements


@rewrite(stage="fused")
class SumAndProduct:
    """``s = a + b;  p = s * c``   ==>   ``s = b + a;  p = c * s``"""

    def pattern(self, a: Row, b: Row, c: Row) -> Values:
        s = a + b
        return s, s * c

    def replacement(self, a: Value, b: Value, c: Value) -> Values:
        s = b + a
        return s, c * s

    examples = (example(lambda a, b, c: ((s := a + b) * c, ops.exp(s)), a=ROW, b=ROW, c=ROW),)


def test_every_output_may_be_read_elsewhere():
    body = "%s: f32[T, 4] = add(%x, %z)\n%e: f32[T, 4] = exp(%s)\n%y: f32[T, 4] = mul(%s, %x)"
    lines, report = after(SumAndProduct(), program(forward(body, "%y, %e, %s")))
    assert report.matches == 1
    assert lines[:3] == [
        "%add: f32[T, 4] = add(%z, %x)",
        "%mul: f32[T, 4] = mul(%x, %add)",
        "%e: f32[T, 4] = exp(%add)",
    ]


def test_an_input_that_comes_after_one_output_moves_the_replacement_there():
    body = """%s: f32[T, 4] = add(%x, %z)
    %c: f32[T, 4] = exp(%x)
    %y: f32[T, 4] = mul(%s, %c)
    %t: f32[T, 4] = tanh(%s)"""
    lines, report = after(SumAndProduct(), program(forward(body, "%y, %t")))
    assert report.matches == 1
    assert [line.split(" = ")[0] for line in lines[:4]] == [f"%{n}: f32[T, 4]" for n in ("c", "add", "mul", "t")]


@pytest.mark.parametrize("between", ["%c: f32[T, 4] = exp(%s)", "%e: f32[T, 4] = exp(%s)\n%c: f32[T, 4] = neg(%e)"])
def test_an_input_that_depends_on_an_output_is_refused(between):
    body = f"%s: f32[T, 4] = add(%x, %z)\n{between}\n%y: f32[T, 4] = mul(%s, %c)"
    lines, report = after(SumAndProduct(), program(forward(body)))
    assert report.matches == 0
    assert "which it reads, stands after %" in report.near_misses[0]
    assert lines[0] == "%s: f32[T, 4] = add(%x, %z)"


def test_an_input_that_is_an_output_is_refused():
    body = "%s: f32[T, 4] = add(%x, %z)\n%y: f32[T, 4] = mul(%s, %s)"
    _, report = after(SumAndProduct(), program(forward(body)))
    assert report.near_misses == ("y: %s = add(...) is c, and part of the pattern itself",)


def test_a_chain_of_matches_is_rewritten_whole():
    """Each sum is an output of one match and an input of the next."""
    layer = "%s{0}: f32[T, 4] = add({1}, %z)\n%n{0}: f32[T, 4] = rms_norm(%s{0}, @w, eps=1e-06)\n"
    body = layer.format(0, "%x") + "".join(layer.format(i, f"%n{i - 1}") for i in range(1, 4))
    lines, report = after(FuseAddRMSNorm(), program(forward(body, "%n3"), ["w [4]"]))
    assert report.matches == 4
    assert [line.split(" = ")[1].split("(")[0] for line in lines[:-1]] == ["add_rms_norm", "get"] * 4


# --- states


@rewrite(stage="fused", shared=True)
class WriteLate:
    """``q = exp(x);  s' = kv_write(s, k, k)``   ==>   the same two"""

    def pattern(self, x: Float[Value, "T G D"], s: State, k: Float[Value, "T G D"], slots: Int[Value, "T"]) -> Values:
        q = ops.exp(x)
        return q, ops.kv_write(s, q, k, slots)

    def replacement(self, x: Value, s: Value, k: Value, slots: Value) -> Values:
        q = ops.exp(x)
        return q, ops.kv_write(s, q, k, slots)

    examples = (
        example(
            lambda x, s, k, slots: ops.kv_write(s, ops.exp(x), k, slots),
            x="f32[T, 1, 4]",
            s="paged<0>f32[1, 4, 4]",
            k="f32[T, 1, 4]",
            slots="i32[T]",
        ),
    )


STATE = (
    "%x: f32[T, 1, 4], %kv: paged<0>f32[1, 4, 4], %slots: i32[T], %table: i32[S, B], %starts: i32[S+1], "
    "%positions: i32[T]"
)
READ = "%{}: f32[T, 1, 4] = paged_attention(%x, {}, %table, %starts, %positions, scale=0.5)"
QUERY = "%q: f32[T, 1, 4] = exp(%x)"
WRITE = "%w: paged<0>f32[1, 4, 4] = kv_write(%kv, %q, %x, %slots)"


def test_a_state_that_is_read_between_the_outputs_is_refused():
    """The replacement would stand at the first output, and change the state under the reader's eyes."""
    body = "\n".join([QUERY, READ.format("r", "%kv"), WRITE, READ.format("y", "%w")])
    lines, report = after(WriteLate(), program(forward(body, "%y, %r", STATE)))
    assert report.near_misses == ("w: %r = paged_attention(...) reads the state before %w = kv_write(...) changes it",)
    assert len(lines) == 5


def test_a_state_that_is_read_before_and_after_is_no_obstacle():
    body = "\n".join([READ.format("r", "%kv"), QUERY, WRITE, READ.format("y", "%w")])
    lines, report = after(WriteLate(), program(forward(body, "%y, %r", STATE)))
    assert report.matches == 1
    assert sum(" = kv_write(" in line for line in lines) == 1


def test_a_change_of_state_that_nothing_reads_is_replaced_too():
    body = "\n".join([QUERY, WRITE])
    lines, report = after(WriteLate(), program(forward(body, "%q", STATE)))
    assert report.matches == 1
    assert sum(" = kv_write(" in line for line in lines) == 1


def test_a_limit_leaves_later_layers_as_they_were():
    shown = FuseQKVWrite.examples[0]
    changed, report = run_pass(shown.program(), FuseQKVWrite(), limit=0)
    assert report.sites == ()
    assert statements(changed) == statements(shown.program())


# --- an op with several results, as a whole


@rewrite(stage="fused")
class ExchangedSum:
    """``add_rms_norm(x, r, w)``   ==>   ``add_rms_norm(r, x, w)``"""

    def pattern(self, x: Row, r: Row, w: Weight[Value, "H"], eps: Number) -> Value:
        return ops.add_rms_norm(x, r, w, eps=eps)

    def replacement(self, x: Value, r: Value, w: Value, eps: float) -> Value:
        return ops.add_rms_norm(r, x, w, eps=eps)

    examples = (example(lambda x, r, w: ops.add_rms_norm(x, r, w, eps=1e-6)[1], x=ROW, r=ROW, w="weight f32[4]"),)


def test_an_op_with_several_results_is_replaced_as_a_whole():
    body = "%b: (f32[T, 4], f32[T, 4]) = add_rms_norm(%x, %z, @w, eps=1e-06)\n%y: f32[T, 4] = get(%b, index=1)"
    lines, report = after(ExchangedSum(), program(forward(body), ["w [4]"]))
    assert (report.matches, report.regions) == (1, 1)
    assert "add_rms_norm(%z, %x, @w" in lines[0]


def test_two_results_of_one_call_are_no_pattern():
    with pytest.raises(TypeError, match="of an op with several results, the call itself"):

        @rewrite(stage="fused")
        class Both:
            """Both results of one call."""

            def pattern(self, x: Row, r: Row, w: Weight[Value, "H"], eps: Number) -> Values:
                both = ops.add_rms_norm(x, r, w, eps=eps)
                return both[0], both[1]

            def replacement(self, x: Value, r: Value, w: Value, eps: float) -> Values:
                both = ops.add_rms_norm(r, x, w, eps=eps)
                return both[0], both[1]

            examples = ()


# --- deep models, and inputs that the new side does without


@rewrite(stage="fused", numerics="exact")
class FirstHalf:
    """``slice(concat(a, b), 0:H)``   ==>   ``a``"""

    def pattern(self, a: Float[Value, "T H"], b: Float[Value, "T H"], H: Size) -> Value:
        return ops.slice(ops.concat(a, b, axis=1), axis=1, start=0, stop=H)

    def replacement(self, a: Value) -> Value:
        return a

    examples = (example(lambda a, b: ops.slice(ops.concat(a, b, axis=1), axis=1, start=0, stop=4), a=ROW, b=ROW),)


@pytest.mark.parametrize("depth", [3, 600])
def test_an_input_that_the_new_side_drops_may_be_deeply_computed(depth):
    deep = "\n".join(f"%d{i + 1}: f32[T, 4] = tanh(%{f'd{i}' if i else 'z'})" for i in range(depth))
    body = f"{deep}\n%c: f32[T, 8] = concat(%x, %d{depth}, axis=1)\n%s: f32[T, 4] = slice(%c, axis=1, start=0, stop=4)"
    lines, report = after(FirstHalf(), program(forward(f"{body}\n%y: f32[T, 4] = exp(%s)")))
    assert (report.matches, report.regions) == (1, 1)
    assert lines == ["%y: f32[T, 4] = exp(%x)", "return %y"]
