"""Rows of tables by number, on the interpreter."""

from pathlib import Path

import pytest
import torch

from tests.codegen.triton.checking import check_op, check_program
from tests.programs import program

DTYPES = ["f32", "bf16", "f16"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 40, 64, 1025, 2048])
def test_embedding(width: int, dtype: str, tmp_path: Path):
    ids = torch.tensor([4, 0, 4, 6], dtype=torch.int32)
    found = check_op(
        "embedding",
        ["@table", "%ids"],
        {"ids": "i32[T]"},
        {"table": f"[7, {width}]"},
        {},
        dtype,
        tmp_path,
        tokens=4,
        captured=9,
        values={"ids": ids},
        bounds=dict.fromkeys(DTYPES, 0.0),
    )
    assert torch.equal(found["out"][0], found["out"][2])


@pytest.mark.parametrize("dtype", [*DTYPES, "i32"])
@pytest.mark.parametrize("shape", ["", ", 40", ", 3, 1024", ", 2, 5, 3"])
def test_take_rows(shape: str, dtype: str, tmp_path: Path):
    made = program(
        f"func forward(%x: {dtype}[T{shape}], %rows: i32[R]) -> (y) {{\n"
        f"  %y: {dtype}[R{shape}] = take_rows(%x, %rows)\n  return %y\n}}"
    )
    sizes = [int(s) for s in shape.split(", ")[1:]]
    values = {"x": torch.arange(5 * torch.Size(sizes).numel()).reshape(5, *sizes)}
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "i32": torch.int32}[dtype]
    values = {"x": values["x"].to(kind), "rows": torch.tensor([4, 1], dtype=torch.int32)}
    check_program(
        made,
        tmp_path,
        values=values,
        sizes={"T": 5, "R": 2},
        capture={"T": 8, "R": 4},
        bounds=dict.fromkeys([*DTYPES, "i32"], 0.0),
    )
