"""Packed matrix products: right to rounding, and the same bits for every number of rows and threads."""

import math

import numpy as np
import pytest
from xllmc.runtime.artifact.dtypes import bf16_to_f32, cast, f32_to_bf16
from xllmc.runtime.artifact.recipe import Tensor, interleave, pack_panels

TYPES = ["f32", "bf16"]
ROWS = [*range(1, 18), 33, 100]


def draw(random, dtype, *shape):
    return cast(random.normal(size=shape).astype(np.float32), "f32", dtype)


def widen(values, dtype):
    return (bf16_to_f32(values) if dtype == "bf16" else values).astype(np.float64)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def packed(weights, dtype):
    return pack_panels(Tensor(weights, dtype)).values


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [1, 5, 13, 300])
def test_linear_with_bias_odd_k_and_ragged_n(kernels, random, dtype, rows):
    x, w, b = draw(random, dtype, rows, 65), draw(random, dtype, 97, 65), draw(random, dtype, 97)
    out = np.full((rows, 97), np.nan, np.float32)
    kernels(f"linear_to_float_{dtype}", x, packed(w, dtype), b, out, rows)
    exact = widen(x, dtype) @ widen(w, dtype).T + widen(b, dtype)
    assert np.abs(out - exact).max() < 2e-5
    stored = np.zeros((rows, 97), x.dtype)
    kernels(f"linear_{dtype}", x, packed(w, dtype), b, stored, rows)
    assert (stored == cast(out, "f32", dtype)).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_the_activation_is_applied_before_the_one_rounding(kernels, random, dtype):
    x, w = draw(random, dtype, 7, 300), draw(random, dtype, 64, 300)
    out = np.zeros((7, 64), np.float32)
    kernels(f"linear_gelu_{dtype}", x, packed(w, dtype), None, out, 7)
    assert np.abs(out - gelu_tanh(widen(x, dtype) @ widen(w, dtype).T)).max() < 1e-4


@pytest.mark.parametrize("dtype", TYPES)
def test_gate_and_up_meet_in_one_panel(kernels, random, dtype):
    x, gate, up = (draw(random, dtype, n, 64) for n in (9, 40, 40))
    bias = [draw(random, dtype, 40) for _ in range(2)]
    w = interleave(Tensor(gate, dtype), Tensor(up, dtype), block=16)
    b = interleave(*(Tensor(v, dtype) for v in bias), block=16)
    out = np.full((9, 40), np.nan, np.float32)
    kernels(f"linear_gated_{dtype}", x, packed(w.values, dtype), np.ascontiguousarray(b.values), out, 9)
    left, right = (widen(x, dtype) @ widen(m, dtype).T + widen(v, dtype) for m, v in zip((gate, up), bias, strict=True))
    assert np.abs(out - silu(left) * right).max() < 2e-4


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("name", "n", "k"), [("to_float", 97, 65), ("gelu", 64, 300), ("gated", 40, 64)])
def test_a_row_has_the_same_bits_in_every_batch(kernels, random, dtype, name, n, k):
    """The tile that a row lands in, its place there, and the number of threads must not show."""
    x = draw(random, dtype, 100, k)
    w = packed(draw(random, dtype, 96 if name == "gated" else n, k), dtype)
    alone = np.zeros((100, n), np.float32)
    for m in range(100):
        kernels(f"linear_{name}_{dtype}", x[m : m + 1], w, None, alone[m : m + 1], 1, threads=1)
    for rows in ROWS:
        for threads in (1, 2):
            first = int(random.integers(0, 100 - rows + 1))
            out = np.zeros((rows, n), np.float32)
            kernels(f"linear_{name}_{dtype}", x[first : first + rows], w, None, out, rows, threads=threads)
            assert (out.view(np.uint32) == alone[first : first + rows].view(np.uint32)).all(), (rows, threads)


def test_the_float32_chain_is_one_fma_after_another(kernels, random):
    """Written out by hand, so that a change of order is a change of this test."""
    x, w = draw(random, "f32", 3, 65), draw(random, "f32", 97, 65)
    out = np.zeros((3, 97), np.float32)
    kernels("linear_to_float_f32", x, packed(w, "f32"), None, out, 3)
    chain = np.zeros((3, 97), np.float32)
    for k in range(65):
        # The product of two float32 is exact in long double, and so, to one rounding, is the sum.
        product = x[:, k : k + 1].astype(np.longdouble) * w[:, k].astype(np.longdouble)
        chain = (chain + product).astype(np.float32)
    assert (out == chain).mean() > 0.99 and np.abs(out - chain).max() < 1e-5


def test_other_rows_do_not_leak_through_an_odd_k(kernels, random):
    """With odd K the last pair of a row ends where the next row begins; a NaN there must stay there."""
    x, w = draw(random, "bf16", 2, 65), draw(random, "bf16", 97, 65)
    x[1] = f32_to_bf16(np.full(65, np.nan, np.float32))
    out = np.zeros((2, 97), np.float32)
    kernels("linear_to_float_bf16", x, packed(w, "bf16"), None, out, 2)
    assert np.isfinite(out[0]).all() and np.isnan(out[1]).all()
