"""Rotary embeddings and writes into pages, on the interpreter."""

from pathlib import Path

import pytest
import torch

from tests.codegen.triton.checking import check_op, check_program
from tests.programs import program

SLOTS = torch.tensor([37, 5, 128, 70], dtype=torch.int32)


@pytest.mark.parametrize("half", [16, 20])
def test_rope_table(half: int, tmp_path: Path):
    positions = torch.cat([torch.tensor([0, 7, 32_767, 131_071, 1_000_000]), torch.arange(0, 999_999, 9091)])
    values = {"p": positions.int()}
    values["f"] = 10000.0 ** -(torch.arange(half) / half)
    inputs = {"p": "i32[T]", "f": f"f32[{half}]"}
    attributes = {"scale": 1.25}
    sizes = {"tokens": len(positions), "captured": len(positions) + 9}
    bounds = {"f32": 2e-7}
    check_op("rope_table", ["%p", "%f"], inputs, {}, attributes, "f32", tmp_path, values=values, bounds=bounds, **sizes)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize(("heads", "width", "rotary"), [(4, 32, 32), (3, 80, 32), (1, 24, 24)])
def test_rope(heads: int, width: int, rotary: int, dtype: str, tmp_path: Path):
    inputs = {"x": f"{dtype}[T, {heads}, {width}]", "t": f"f32[T, {rotary}]"}
    check_op("rope", ["%x", "%t"], inputs, {}, {}, dtype, tmp_path, tokens=3, captured=4)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize(("heads", "key", "value"), [(2, 32, 32), (3, 40, 24)])
def test_kv_write(heads: int, key: int, value: int, dtype: str, tmp_path: Path):
    kind = f"paged<0>{dtype}[{heads}, {key}, {value}]"
    made = program(
        f"""func forward(%kv.0: {kind}, %k: {dtype}[T, {heads}, {key}], %v: {dtype}[T, {heads}, {value}], \
%slots: i32[T]) -> (w) {{
  %s: {kind} = kv_write(%kv.0, %k, %v, %slots)
  %w: {dtype}[T, {2 * heads}, {key}] = concat(%k, %k, axis=1)
  return %w
}}""",
        (),
        dtype,
    )
    check_program(made, tmp_path, tokens=4, captured=6, values={"slots": SLOTS})


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "key", "value", "rotary", "normed"),
    [(4, 2, 32, 32, 32, True), (3, 1, 40, 24, 16, True), (4, 4, 16, 16, 0, False), (2, 2, 64, 64, 64, False)],
)
def test_qkv_write(
    heads: int, kv_heads: int, key: int, value: int, rotary: int, normed: bool, dtype: str, tmp_path: Path
):
    kind, wide = f"paged<0>{dtype}[{kv_heads}, {key}, {value}]", heads * key + kv_heads * (key + value)
    table = f"%t: f32[T, {rotary}], " if rotary else ""
    weights = "@q, @k" if normed else "none, none"
    made = program(
        f"""func forward(%qkv: {dtype}[T, {wide}], {table}%kv.0: {kind}, %slots: i32[T]) -> (q) {{
  %b: ({dtype}[T, {heads}, {key}], {kind}) = qkv_write(%qkv, {"%t" if rotary else "none"}, {weights}, %kv.0, %slots, \
eps=1e-06, heads={heads})
  %q: {dtype}[T, {heads}, {key}] = get(%b, index=0)
  return %q
}}""",
        [f"q [{key}]", f"k [{key}]"] if normed else (),
        dtype,
    )
    check_program(made, tmp_path, tokens=4, captured=6, values={"slots": SLOTS})
