"""What products and embeddings do to their values before they store them, on the interpreter."""

from pathlib import Path

import pytest
import torch
from xllmc.compiler.pipeline.run import run_pass
from xllmc.passes.fuse_epilogue import FuseEpilogue

from tests.codegen.triton.checking import check_program
from tests.programs import program

CHAINS = {
    "residual": """
      %l: {d}[T, 41] = linear(%x, @w, none)
      %m: {d}[T, 41] = mul(%l, 0.22)
      %y: {d}[T, 41] = add(%r, %m)""",
    "soft cap": """
      %l: f32[T, 41] = linear(%x, @w, @v, out_dtype="f32")
      %d: f32[T, 41] = div(%l, 2.5)
      %t: f32[T, 41] = tanh(%d)
      %y: f32[T, 41] = mul(%t, 2.5)""",
    "a row for all, a number for each row, and one beside each element": """
      %l: {d}[T, 41] = linear(%x, @w, @v, activation="silu")
      %a: {d}[T, 41] = mul(%l, @v)
      %b: {d}[T, 41] = add(%a, %s)
      %y: {d}[T, 41] = maximum(%b, %r)""",
    "gated": """
      %l: {d}[T, 40] = linear(%x, @gu, none, activation="gelu_tanh", gated=40)
      %s1: {d}[T, 40] = mul(%l, %s)
      %y: {d}[T, 40] = sub(%s1, %q)""",
    "embedding": """
      %e: {d}[T, 33] = embedding(@table, %ids)
      %m: {d}[T, 33] = mul(%e, 5.5)
      %y: {d}[T, 33] = add(%m, %x)""",
}
WEIGHTS = ("w [41, 33]", "v [41]", "gu [96, 33]", "table [50, 33]")
SHAPES = {"x": 33, "r": 41, "q": 40, "s": 1}


@pytest.mark.parametrize("tokens", [1, 3, 20, 70])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("invariant", [False, True])
def test_an_epilogue_computes_its_ops(chain: str, dtype: str, tokens: int, invariant: bool, tmp_path: Path):
    body = CHAINS[chain].format(d=dtype)
    inputs = ", ".join(f"%{n}: {dtype}[T, {width}]" for n, width in SHAPES.items())
    text = f"func forward({inputs}, %ids: i32[T]) -> (y) {{{body}\n return %y }}"
    made, _ = run_pass(program(text, WEIGHTS, dtype), FuseEpilogue())
    assert [n.target.name for n in made.forward.calls] == ["embedding" if chain == "embedding" else "linear"]
    ids = torch.arange(tokens, dtype=torch.int32) * 7 % 50
    check_program(made, tmp_path, tokens=tokens, captured=tokens + 2, values={"ids": ids}, invariant=invariant)
