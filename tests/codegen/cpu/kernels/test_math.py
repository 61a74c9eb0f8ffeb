"""Elementary functions against double precision, and their values where it is easy to go wrong."""

import math

import numpy as np
import pytest

EXACT = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_erf": lambda x: 0.5 * x * np.vectorize(math.erfc)(-x / math.sqrt(2)),
    "sin": np.sin,
    "pow": lambda x: x**0.75,
    "cube": lambda x: x**3,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


def apply(kernels, name: str, x: np.ndarray, threads: int = 2) -> np.ndarray:
    x = np.atleast_2d(np.asarray(x, np.float32))
    out = np.full_like(x, np.nan)
    kernels(f"pointwise_{name}", np.ascontiguousarray(x), out, *x.shape, threads=threads)
    return out


@pytest.mark.parametrize(
    ("name", "low", "high", "ulps"),
    [
        ("exp", -87, 88, 2),
        ("log", 1e-30, 1e30, 2),
        ("log", 0.5, 2, 2),
        ("tanh", -10, 10, 2.5),
        ("erf", -4, 4, 2),
        ("sigmoid", -80, 80, 3),
        ("silu", -20, 20, 3),
        ("gelu_tanh", -1, 10, 4),
        ("gelu_erf", -1, 10, 4),
        ("sin", -100, 100, 1),
        ("pow", 0, 100, 1),
        ("cube", -10, 10, 2),
        ("rsqrt", 1e-6, 1e6, 1.6),
    ],
)
def test_accuracy(kernels, random, name, low, high, ulps):
    x = random.uniform(low, high, 20_000).astype(np.float32)
    got = apply(kernels, name, x)[0]
    exact = EXACT[name](x.astype(np.float64))
    # A result near a zero of the function is measured against the input's own spacing as well.
    spacing = np.maximum(np.spacing(np.abs(exact).astype(np.float32)), 1e-37).astype(np.float64)
    assert np.max(np.abs(got - exact) / spacing) <= ulps


@pytest.mark.parametrize("name", ["gelu_erf", "gelu_tanh"])
def test_accuracy_of_gelu_in_its_tail_is_absolute(kernels, random, name):
    x = random.uniform(-8, -1, 10_000).astype(np.float32)
    assert np.allclose(apply(kernels, name, x)[0], EXACT[name](x.astype(np.float64)), rtol=0, atol=3e-7)


def test_special_values(kernels):
    inf, nan, huge, tiny = np.inf, np.nan, 3.4e38, 1e-44
    for name, given, wanted in [
        ("exp", [0, -0.0, -inf, inf, -1000, 1000, nan], [1, 1, 0, inf, 0, inf, nan]),
        ("log", [0, 1, inf, -1, tiny, nan], [-inf, 0, inf, nan, np.log(np.float32(tiny)), nan]),
        ("tanh", [0, -inf, inf, -huge, huge, nan], [0, -1, 1, -1, 1, nan]),
        ("erf", [0, -inf, inf, -huge, huge, nan], [0, -1, 1, -1, 1, nan]),
        ("sigmoid", [0, -inf, inf, -huge, huge, nan], [0.5, 0, 1, 0, 1, nan]),
        ("silu", [0, -inf, inf, -huge, huge, nan], [0, 0, inf, 0, huge, nan]),
        ("gelu_tanh", [0, -inf, inf, -huge, huge, nan], [0, 0, inf, 0, huge, nan]),
        ("gelu_erf", [0, -inf, inf, -huge, huge, nan], [0, 0, inf, 0, huge, nan]),
        ("maximum", [0, 1, nan], [0.5, 1, nan]),
    ]:
        got = apply(kernels, name, given)[0]
        assert np.allclose(got, np.asarray(wanted, np.float32), rtol=1e-6, atol=0, equal_nan=True), name


def test_exp_of_denormal_results(kernels):
    x = np.linspace(-103.9, -87.4, 500).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(apply(kernels, "exp", x)[0] - exact)) <= 1.5 * 1.4e-45 + 2**-23 * exact.max()


def test_a_value_does_not_depend_on_its_lane(kernels, random):
    for name in EXACT:
        x = random.uniform(0.1, 3, 61).astype(np.float32)
        rows = np.stack([np.roll(x, shift) for shift in range(61)])
        got = apply(kernels, name, rows)
        assert all((np.roll(row, -shift) == got[0]).all() for shift, row in enumerate(got)), name


def test_rounding_to_bf16_is_to_nearest_even_and_keeps_nan(kernels, random):
    from xllmc.runtime.artifact.dtypes import bf16_to_f32, f32_to_bf16

    bits = random.integers(0, 2**32, 50_000, dtype=np.uint64).astype(np.uint32)
    halfway = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    x = np.concatenate([bits, halfway, [0x7F800001, 0xFFFFFFFF, 0x7F7FFFFF]]).astype(np.uint32).view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        got = apply(kernels, "round_bf16", x)[0]
        assert (got.view(np.uint32) == bf16_to_f32(f32_to_bf16(x)).view(np.uint32)).all()


def test_sums_across_lanes_have_one_order(kernels, random):
    x = random.normal(size=(40, 16)).astype(np.float32)
    out = np.zeros(40, np.float32)
    kernels("reduce_rows", x, out, 40)
    folded = x
    while folded.shape[1] > 1:
        half = folded.shape[1] // 2
        folded = folded[:, :half] + folded[:, half:]
    assert (out == folded[:, 0]).all()
