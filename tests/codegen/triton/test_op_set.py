"""Every op of the set reaches a device: by kernels of its own, which compile, or as part of a generated one."""

from pathlib import Path

import pytest
from xllmc.codegen.triton import providers
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.compiler.ir.op import Op
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.types import PagedType, TensorType, TupleType, parse_type
from xllmc.compiler.ops import OPS

from tests.codegen.triton.compiling import compile_all
from tests.codegen.triton.lowered_stage import for_device
from tests.programs import program

IN_LOOPS = "group-loops makes a loop of it, or fuse-epilogue a part of a product"
VIEWED = "it has its operand's bytes, and no kernel runs"

CALLS = {
    "rms_norm": ("%x: bf16[T, 128]", "bf16[T, 128] = rms_norm(%x, @v, eps=1e-06)"),
    "layer_norm": ("%x: bf16[T, 128]", "bf16[T, 128] = layer_norm(%x, @v, @v, eps=1e-06)"),
    "add_rms_norm": (
        "%x: bf16[T, 128], %r: bf16[T, 128]",
        "(bf16[T, 128], bf16[T, 128]) = add_rms_norm(%x, %r, @v, eps=1e-06)",
    ),
    "add_layer_norm": (
        "%x: bf16[T, 128], %r: bf16[T, 128]",
        "(bf16[T, 128], bf16[T, 128]) = add_layer_norm(%x, %r, @v, @v, eps=1e-06)",
    ),
    "rope_table": ("%p: i32[T], %f: f32[32]", "f32[T, 64] = rope_table(%p, %f, scale=1.0)"),
    "rope": ("%x: bf16[T, 4, 64], %t: f32[T, 64]", "bf16[T, 4, 64] = rope(%x, %t)"),
    "kv_write": (
        "%s: paged<0>bf16[2, 64, 64], %k: bf16[T, 2, 64], %v: bf16[T, 2, 64], %at: i32[T]",
        "paged<0>bf16[2, 64, 64] = kv_write(%s, %k, %v, %at)",
    ),
    "qkv_write": (
        "%x: bf16[T, 512], %t: f32[T, 64], %s: paged<0>bf16[2, 64, 64], %at: i32[T]",
        "(bf16[T, 4, 64], paged<0>bf16[2, 64, 64]) = qkv_write(%x, %t, none, none, %s, %at, eps=1e-06, heads=4)",
    ),
    "paged_attention": (
        "%q: bf16[T, 4, 64], %s: paged<0>bf16[2, 64, 64], %b: i32[S, B], %starts: i32[S+1], %at: i32[T]",
        "bf16[T, 4, 64] = paged_attention(%q, %s, %b, %starts, %at, none, scale=0.1, softcap=0.0, window=0)",
    ),
    "linear": ("%x: bf16[T, 128]", "bf16[T, 256] = linear(%x, @w, none)"),
    "embedding": ("%ids: i32[T]", "bf16[T, 128] = embedding(@w, %ids)"),
    "take_rows": ("%x: bf16[T, 128], %rows: i32[R]", "bf16[R, 128] = take_rows(%x, %rows)"),
    "loop": (
        "%x: bf16[T, 128]",
        "f32[T, 128] = loop(%x, body=(%0: bf16[T, 128]) { %1: f32[T, 128] = cast(%0, dtype=\"f32\"); "
        "%2: f32[T, 1] = mean(%1); %3: f32[T, 128] = sub(%1, %2); return %3 })",
    ),
    "slice": ("%x: bf16[T, 128]", "bf16[T, 32] = slice(%x, axis=1, start=8, stop=40)"),
    "concat": ("%x: bf16[T, 128]", "bf16[T, 256] = concat(%x, %x, axis=1)"),
    "permute": ("%x: bf16[T, 4, 64]", "bf16[T, 64, 4] = permute(%x, axes=[0, 2, 1])"),
    "token_logprob": ("%l: f32[R, 512], %t: i32[R]", "f32[R] = token_logprob(%l, %t)"),
    "sample": (
        "%l: f32[R, 512], %rows: u8[R, 80], %h: i32[N], %i: i32[N], %v: f32[N], %m: u32[N]",
        "(i32[R], f32[R, 3], i32[R, 20], f32[R, 20]) = sample(%l, %rows, %h, %i, %v, %m)",
    ),
}  # fmt: skip
"""A call of each op that has kernels of its own: inputs, and the statement's type and text."""


def own_ops() -> dict[str, Op]:
    """Without what plugins of other tests may have registered."""
    return {name: op for name, op in OPS.items() if op.infer is not None and op.infer.__module__.startswith("xllmc.")}


def exception(op: Op) -> str | None:
    """Why an op needs no kernels of its own."""
    if op.traits.view:
        return VIEWED
    return IN_LOOPS if op.traits.pointwise or op.traits.reduction else None


def test_every_op_has_kernels_or_needs_none():
    assert providers.__all__
    missing = [name for name, op in own_ops().items() if "triton" not in op.kernels and exception(op) is None]
    assert missing == []
    assert set(CALLS) == {name for name, op in own_ops().items() if "triton" in op.kernels}


@pytest.mark.parametrize("name", [name for name, op in own_ops().items() if exception(op) == IN_LOOPS])
def test_what_has_no_kernel_becomes_part_of_a_loop(name):
    operands = {"add": 2, "sub": 2, "mul": 2, "div": 2, "maximum": 2, "minimum": 2}.get(name, 1)
    attributes = {"pow": ", exponent=3.0", "cast": ', dtype="bf16"'}.get(name, "")
    width = 1 if OPS[name].traits.reduction else 16
    dtype = "bf16" if name == "cast" else "f32"
    call = f"{name}({', '.join(['%x', '%z'][:operands])}{attributes})"
    text = f"func forward(%x: f32[T, 16], %z: f32[T, 16]) -> (y) {{\n%y: {dtype}[T, {width}] = {call}\nreturn %y\n}}"
    assert [call.target.name for call in for_device(program(text)).forward.calls] == ["loop"]


def calling(name: str) -> Program:
    """A program of the op's call alone, but for one that only writes a state: a copy gives it a result."""
    inputs, statement = CALLS[name]
    kind = parse_type(statement.partition(" = ")[0])
    items = dict(enumerate(kind.items)) if isinstance(kind, TupleType) else {}
    lines = [f"%y: {statement}", *(f"%y{i}: {item} = get(%y, index={i})" for i, item in items.items())]
    results = [f"%y{i}" for i, item in items.items() if isinstance(item, TensorType)] or ["%y"]
    if isinstance(kind, PagedType):
        lines.append("%c: bf16[T, 1, 64] = slice(%k, axis=1, start=0, stop=1)")
        results = ["%c"]
    names = ", ".join(f"r{i}" for i in range(len(results)))
    body = "\n".join(lines)
    weights = [w for w in ("w [256, 128]", "v [128]") if f"@{w[0]}" in statement]
    return program(f"func forward({inputs}) -> ({names}) {{\n{body}\nreturn {', '.join(results)}\n}}", weights, "bf16")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", CALLS)
def test_kernels_compile_within_the_architectures_limits(name: str, architecture: str, tmp_path: Path):
    assert compile_all(calling(name), architecture, tmp_path)
