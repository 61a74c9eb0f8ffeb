"""Lowering refuses what its kernels would compute wrongly, with the op and the reason."""

import pytest
from xllmc.codegen.cpu.lower import lower
from xllmc.compiler.functions import add_sampling
from xllmc.compiler.pipeline.run import run
from xllmc.passes.group_loops import GroupLoops
from xllmc.passes.pack_weights import PackWeights
from xllmc.runtime.artifact.errors import XllmcError

from tests.programs import program

MIXED = """
func forward(%x: f32[T, 16]) -> (y) {{
  %l: f32[T, 16] = linear(%x, @m, none)
  %s: f32[16, 16] = mul(@m, 2.0)
  %y: f32[T, 16] = linear(%l, {other}, none)
  return %y
}}"""


def refused(text: str, reason: str, *passes, weights=("m [16, 16]",)) -> None:
    made, _ = run(program(text, weights), passes)
    with pytest.raises(XllmcError, match=reason):
        lower(made, "test")


def test_a_matrix_that_kernels_want_stored_in_two_ways():
    refused(MIXED.format(other="%s"), "reads %m in rows, but it is stored in panels", GroupLoops(), PackWeights())


def test_a_computed_matrix_is_not_read_as_panels():
    text = MIXED.format(other="%s").replace("linear(%x, @m, none)", "exp(%x)")
    refused(text, "reads %loop.* in panels, but it is stored in rows", GroupLoops(), PackWeights())


def test_matrices_that_were_not_packed():
    refused("func forward(%x: f32[T, 16]) -> (y) {\n %y: f32[T, 16] = linear(%x, @m, none)\n return %y\n}", "in panels")


@pytest.mark.parametrize("dtype", ["i32", "f16", "i64"])
def test_a_cast_that_loops_cannot_make(dtype):
    text = f"""
    func forward(%x: f32[T, 16]) -> (y) {{
      %i: {dtype}[T, 16] = cast(%x, dtype="{dtype}")
      %f: f32[T, 16] = cast(%i, dtype="f32")
      %y: f32[T, 16] = sub(%x, %f)
      return %y
    }}"""
    refused(text, f"cannot cast to {dtype}", GroupLoops(), weights=())


def test_an_op_without_a_kernel():
    text = "func forward(%x: f32[T, 16]) -> (y) {\n %y: f32[T, 16] = exp(%x)\n return %y\n}"
    refused(text, "no CPU kernel computes op exp", weights=())


def test_trees_are_not_read_yet():
    text = """
    func forward(%q: f32[T, 2, 16], %s: paged<0>f32[1, 16, 16], %table: i32[S, B], %starts: i32[S+1], %at: i32[T],
                 %tree: i32[T, 2]) -> (y) {
      %y: f32[T, 2, 16] = paged_attention(%q, %s, %table, %starts, %at, %tree, scale=0.5, softcap=0.0, window=0)
      return %y
    }"""
    refused(text, "does not read ancestors", weights=())


@pytest.mark.parametrize("logits", ["bf16[R, 64]", "f32[R, 63]"])
def test_logits_that_sampling_cannot_read(logits):
    dtype = logits.partition("[")[0]
    text = f"func forward(%x: {logits}) -> (logits) {{\n %y: {logits} = exp(%x)\n return %y\n}}"
    with pytest.raises(XllmcError, match=r"requires logits f32\[R, 64\]"):
        add_sampling(program(text, dtype=dtype))
