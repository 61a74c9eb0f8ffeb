"""Matrix products compiled ahead of time: they fit, spill nothing in their loops, and load 16 bytes at a time."""

import re
from pathlib import Path

import pytest
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.compile import Compiled, compile_cubin
from xllmc.codegen.triton.lower import Lowered, lower
from xllmc.codegen.triton.predict import Problem, shared_bytes
from xllmc.compiler.ir.program import Program
from xllmc.compiler.pipeline.run import run_pass
from xllmc.passes.fuse_epilogue import FuseEpilogue

from tests.programs import program

MATRIX = re.compile(r"wgmma\.mma_async\S*\.(m64n\d+k\d+)|mma\.sync\.aligned\.(m\d+n\d+k\d+)")

KEPT_AWAY = 16
"""Bytes of a thread: ptxas stores a number or two while the loop runs, so that another program fits beside."""


def product(dtype: str, columns: int, inner: int, gated: bool) -> Program:
    rows = 2 * columns if gated else columns
    options = f', gated={columns}, activation="silu"' if gated else ""
    text = (
        f"func forward(%x: {dtype}[T, {inner}]) -> (y) {{\n"
        f"  %y: {dtype}[T, {columns}] = linear(%x, @w, none{options})\n  return %y\n}}"
    )
    return program(text, [f"w [{rows}, {inner}]"], dtype)


def compiled(made: Lowered, name: str, work: Path) -> list[Compiled]:
    return [compile_cubin(source, ARCHITECTURES[name], work) for source in made.sources]


def instructions(kernels: list[Compiled]) -> set[str]:
    return {a or b for kernel in kernels for a, b in MATRIX.findall(kernel.ptx)}


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize(
    ("dtype", "columns", "inner", "gated"), [("bf16", 1024, 3072, False), ("bf16", 3072, 1024, True)]
)
def test_every_variant_fits(dtype: str, columns: int, inner: int, gated: bool, name: str, tmp_path: Path):
    lowered = lower(product(dtype, columns, inner, gated), ARCHITECTURES[name])
    kernels = compiled(lowered, name, tmp_path)
    for source, kernel in zip(lowered.sources, kernels, strict=True):
        assert kernel.kernel.spilled_bytes <= KEPT_AWAY, source.config
        if "SWAP" in source.config.tiles:  # not of the kernel that adds pieces
            # What predictions and candidates rest on.
            problem = Problem(dtype, columns, inner, gated)
            assert kernel.kernel.shared_bytes <= max(shared_bytes(problem, source.config), 1024), source.config
            assert not re.search(r"ld\.global\.b16|ld\.global\.b8", kernel.ptx), "weights are loaded in small pieces"
    assert instructions(kernels) & ({"m16n8k16"} if name != "sm_90" else {"m64n128k16", "m64n256k16"})


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
@pytest.mark.parametrize("gated", [False, True])
def test_invariant_variants_multiply_with_one_instruction(gated: bool, name: str, tmp_path: Path):
    lowered = lower(product("bf16", 3072, 1024, gated), ARCHITECTURES[name], invariant=True)
    kernels = compiled(lowered, name, tmp_path)
    assert len(instructions(kernels)) == 1
    assert all(kernel.kernel.spilled_bytes <= KEPT_AWAY for kernel in kernels)


def test_invariant_variants_contract_an_epilogue_alike(tmp_path: Path):
    """A product and a sum of it are one operation where one program walks the pieces and where one adds them."""
    text = """func forward(%x: bf16[T, 2048], %r: bf16[T, 1024]) -> (y) {
      %l: bf16[T, 1024] = linear(%x, @w, none)
      %m: bf16[T, 1024] = mul(%l, 0.22)
      %y: bf16[T, 1024] = add(%r, %m)
      return %y }"""
    made, _ = run_pass(program(text, ["w [1024, 2048]"], "bf16"), FuseEpilogue())
    kernels = compiled(lower(made, ARCHITECTURES["sm_90"], invariant=True), "sm_90", tmp_path)
    finishing = [
        kernel for kernel in kernels if "partial" not in kernel.kernel.parameters or "e1" in kernel.kernel.parameters
    ]
    assert len(kernels) == 3 and len(finishing) == 2
    assert all("fma.rn.f32" in kernel.ptx and "mul.f32" not in kernel.ptx for kernel in finishing)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize(
    ("dtype", "columns", "inner", "gated"),
    [
        ("bf16", 6144, 4096, False),
        ("bf16", 4096, 12288, False),
        ("bf16", 12288, 4096, True),
        ("bf16", 4096, 14336, False),
        ("bf16", 14336, 4096, True),
        ("bf16", 4096, 2304, False),
        ("f16", 9216, 2304, True),
        ("bf16", 2304, 9216, False),
        ("bf16", 151936, 1024, False),
        ("bf16", 128256, 4096, False),
        ("f32", 1024, 1024, False),
        ("f32", 768, 512, True),
    ],
)
def test_nothing_is_spilled_for_known_models(
    dtype: str, columns: int, inner: int, gated: bool, invariant: bool, name: str, tmp_path: Path
):
    lowered = lower(product(dtype, columns, inner, gated), ARCHITECTURES[name], invariant)
    for source, kernel in zip(lowered.sources, compiled(lowered, name, tmp_path), strict=True):
        assert kernel.kernel.spilled_bytes <= KEPT_AWAY, source.config
