"""Normalisations on the interpreter."""

from pathlib import Path

import pytest
import torch

from tests.codegen.triton.checking import check_op


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("width", [64, 200])
@pytest.mark.parametrize("op", ["rms_norm", "layer_norm", "add_rms_norm", "add_layer_norm"])
def test_norms(op: str, width: int, dtype: str, tmp_path: Path):
    operands = ["%x"] + (["%r"] if op.startswith("add") else []) + ["@w"] + (["@b"] if "layer" in op else [])
    inputs = {"x": f"{dtype}[T, {width}]"} | ({"r": f"{dtype}[T, {width}]"} if op.startswith("add") else {})
    weights = {"w": f"[{width}]"} | ({"b": f"[{width}]"} if "layer" in op else {})
    check_op(op, operands, inputs, weights, {"eps": 1e-6}, dtype, tmp_path, tokens=3, captured=5)


def test_huge_rows_and_zero_rows(tmp_path: Path):
    x = torch.zeros(3, 64)
    x[1] = 1e18
    results = check_op(
        "rms_norm", ["%x", "@w"], {"x": "f32[T, 64]"}, {"w": "[64]"}, {"eps": 1e-6}, "f32", tmp_path, values={"x": x}
    )
    assert not results["out"][0].any()
