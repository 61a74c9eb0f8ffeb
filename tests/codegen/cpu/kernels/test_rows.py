"""Norms, embeddings, rotary tables, and what is written between the joint projection and attention."""

import numpy as np
import pytest
from xllmc.runtime.artifact.dtypes import bf16_to_f32, cast
from xllmc.runtime.artifact.recipe import Tensor, pack_panels

TYPES = ["f32", "bf16"]
TOLERANCE = {"f32": 2e-6, "bf16": 2**-8}


def draw(random, dtype, *shape, scale=1.0):
    return cast((scale * random.normal(size=shape)).astype(np.float32), "f32", dtype)


def widen(values, dtype):
    return (bf16_to_f32(values) if dtype == "bf16" else values).astype(np.float64)


def assert_close(got, exact, dtype):
    assert np.all(np.abs(widen(got, dtype) - exact) <= TOLERANCE[dtype] * (1 + np.abs(exact)))


def rms_norm(x, weight, eps=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_rms_norm(kernels, random, dtype, scale):
    x, weight = draw(random, dtype, 5, 200, scale=scale), draw(random, dtype, 200)
    out = np.zeros_like(x)
    kernels(f"rms_norm_{dtype}", x, weight, out, 5, 1e-6)
    assert_close(out, rms_norm(widen(x, dtype), widen(weight, dtype)), dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_rms_norm_with_float_weights_of_a_short_row(kernels, random, dtype):
    x, weight = draw(random, dtype, 5, 72), draw(random, "f32", 72)
    out = np.zeros_like(x)
    kernels(f"rms_norm_float_weight_{dtype}", x, weight, out, 5, 1e-6)
    assert_close(out, rms_norm(widen(x, dtype), weight.astype(np.float64)), dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_layer_norm_far_from_zero(kernels, random, dtype):
    x, weight, bias = draw(random, dtype, 5, 200), draw(random, dtype, 200), draw(random, dtype, 200)
    x = cast((widen(x, dtype) + 50).astype(np.float32), "f32", dtype)
    out = np.zeros_like(x)
    kernels(f"layer_norm_{dtype}", x, weight, bias, out, 5, 1e-5)
    exact = layer_norm(widen(x, dtype), widen(weight, dtype), widen(bias, dtype))
    assert np.abs(widen(out, dtype) - exact).max() < (1e-4 if dtype == "f32" else 3e-2)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_norm_reads_the_sum_as_it_was_stored(kernels, random, dtype):
    x, residual, weight, bias = (draw(random, dtype, *s) for s in [(5, 200), (5, 200), (200,), (200,)])
    wide = (widen(x, dtype) + widen(residual, dtype)).astype(np.float32)
    rounded = cast(wide, "f32", dtype)
    for name, weights, eps in [("rms_norm", (weight,), 1e-6), ("layer_norm", (weight, bias), 1e-5)]:
        total, out, alone = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
        kernels(f"add_{name}_{dtype}", x, residual, *weights, total, out, 5, eps)
        kernels(f"{name}_{dtype}", rounded, *weights, alone, 5, eps)
        assert (total == rounded).all() and (out == alone).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_do_not_depend_on_the_batch(kernels, random, dtype, threads):
    x, weight, bias = draw(random, dtype, 33, 200), draw(random, dtype, 200), draw(random, dtype, 200)
    for name, weights in [("rms_norm", (weight,)), ("layer_norm", (weight, bias))]:
        together, alone = np.zeros_like(x), np.zeros_like(x)
        kernels(f"{name}_{dtype}", x, *weights, together, 33, 1e-6, threads=threads)
        for m in range(33):
            kernels(f"{name}_{dtype}", x[m : m + 1], *weights, alone[m : m + 1], 1, 1e-6, threads=1)
        assert (together == alone).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_an_embedding_is_the_same_from_rows_and_from_panels(kernels, random, dtype):
    table = draw(random, dtype, 77, 65)
    ids = random.integers(0, 77, 19).astype(np.int32)
    plain, packed = np.zeros((19, 65), table.dtype), np.zeros((19, 65), table.dtype)
    kernels(f"embed_{dtype}", table, ids, plain, 19)
    kernels(f"embed_packed_{dtype}", pack_panels(Tensor(table, dtype)).values, ids, packed, 19)
    assert (plain == table[ids]).all() and (packed == table[ids]).all()


def rope_rows(positions, dim=24):
    inverse = (10000.0 ** (-np.arange(0, dim, 2) / dim)).astype(np.float32)
    angle = (positions.astype(np.float32)[:, None] * inverse).astype(np.float64)
    return inverse, np.concatenate([np.cos(angle), np.sin(angle)], 1)


def test_rope_table(kernels):
    positions = np.array([0, 1, 31, 4095, 131071], np.int32)
    inverse, exact = rope_rows(positions)
    out = np.zeros((5, 24), np.float32)
    kernels("rope", positions, inverse, 1.25, out, 5)
    assert (out == (exact * 1.25).astype(np.float32)).all()


def rotate(x, table):
    """x [T, heads, D]; table [T, RD]."""
    half = table.shape[1] // 2
    cos, sin = table[:, None, :half], table[:, None, half:]
    x1, x2, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin, rest], -1)


def pages_to_heads(state, dtype, slots, hkv, d, dv):
    """Keys [T, hkv, d] and values [T, hkv, dv] as they lie in the cache."""
    pages = state.reshape(-1, hkv * (d + dv) * 32)
    keys = pages[:, : hkv * d * 32]
    if dtype == "bf16":
        keys = keys.reshape(-1, hkv, d // 2, 32, 2).transpose(0, 3, 1, 2, 4)
    else:
        keys = keys.reshape(-1, hkv, d, 32).transpose(0, 3, 1, 2)
    values = pages[:, hkv * d * 32 :].reshape(-1, hkv, 32, dv).transpose(0, 2, 1, 3)
    return keys.reshape(-1, hkv, d)[slots], values.reshape(-1, hkv, dv)[slots]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("name", "hq", "hkv", "d", "dv", "rd"), [("plain", 3, 1, 20, 12, 0), ("rope", 4, 2, 32, 32, 24)]
)
def test_qkv_write(kernels, random, dtype, norm, name, hq, hkv, d, dv, rd):
    tokens, pages = 40, 4
    qkv = draw(random, dtype, tokens, (hq + hkv) * d + hkv * dv)
    weights = [draw(random, dtype, d) for _ in range(2)]
    positions = np.arange(tokens, dtype=np.int32) + 3
    slots = random.permutation(pages * 32)[:tokens].astype(np.int32)
    table = rope_rows(positions)[1].astype(np.float32)
    q, state = np.zeros((tokens, hq, d), qkv.dtype), np.zeros(pages * hkv * (d + dv) * 32, qkv.dtype)
    operands = (weights if norm else [None, None]) + [1e-6, table, slots]
    kernels(f"qkv_{name}_{dtype}", qkv, *operands, q, state, tokens)

    wide = widen(qkv, dtype)
    exact_q = wide[:, : hq * d].reshape(tokens, hq, d)
    exact_k = wide[:, hq * d : (hq + hkv) * d].reshape(tokens, hkv, d)
    if norm:
        exact_q, exact_k = (rms_norm(x, widen(w, dtype)) for x, w in zip((exact_q, exact_k), weights, strict=True))
    if rd:
        exact_q, exact_k = (rotate(x, table.astype(np.float64)) for x in (exact_q, exact_k))
    keys, values = pages_to_heads(state, dtype, slots, hkv, d, dv)
    assert_close(q, exact_q, dtype)
    assert_close(keys, exact_k, dtype)
    assert (values.reshape(tokens, -1) == qkv[:, (hq + hkv) * d :]).all()

    alone_q, alone_state = np.zeros_like(q), np.zeros_like(state)
    for t in range(tokens):
        operands = (weights if norm else [None, None]) + [1e-6, table[t : t + 1], slots[t : t + 1]]
        kernels(f"qkv_{name}_{dtype}", qkv[t : t + 1], *operands, alone_q[t : t + 1], alone_state, 1, threads=1)
    assert (alone_q == q).all() and (alone_state == state).all()
