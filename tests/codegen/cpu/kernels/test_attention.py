"""Paged attention against a plain one, and its bits under chunking, batching, paging and stale memory."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xllmc.runtime.artifact.dtypes import bf16_to_f32, cast, f32_to_bf16

TYPES = ["f32", "bf16"]


class Geometry(NamedTuple):
    kernel: str
    hq: int
    hkv: int
    d: int
    dv: int
    window: int


GEOMETRIES = [
    Geometry("attention", 4, 2, 32, 32, 0),
    Geometry("attention_narrow", 3, 1, 20, 12, 0),
    Geometry("attention_window", 4, 4, 16, 80, 40),
]


class Sequence(NamedTuple):
    q: np.ndarray
    """[length, hq, d]"""
    k: np.ndarray
    v: np.ndarray


def draw_sequence(random, dtype: str, g: Geometry, length: int) -> Sequence:
    shapes = [(length, g.hq, g.d), (length, g.hkv, g.d), (length, g.hkv, g.dv)]
    return Sequence(*(cast(random.normal(size=s).astype(np.float32), "f32", dtype) for s in shapes))


def widen(values, dtype):
    return (bf16_to_f32(values) if dtype == "bf16" else values).astype(np.float64)


def plain_attention(s: Sequence, dtype: str, g: Geometry, scale: float, softcap: float) -> np.ndarray:
    q, k, v = (widen(x, dtype) for x in s)
    k, v = (np.repeat(x, g.hq // g.hkv, 1) for x in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    distance = np.arange(len(q))[:, None] - np.arange(len(q))[None]
    visible = (distance >= 0) & ((distance < g.window) if g.window else True)
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v)


def page_of(dtype: str, g: Geometry, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """One page of up to 32 positions; what is not written is NaN."""
    nan = f32_to_bf16(np.float32([np.nan]))[0] if dtype == "bf16" else np.nan
    keys, values = np.full((32, g.hkv, g.d), nan, k.dtype), np.full((32, g.hkv, g.dv), nan, v.dtype)
    keys[: len(k)], values[: len(v)] = k, v
    in_pairs = dtype == "bf16"
    keys = keys.reshape(32, g.hkv, g.d // 2, 2).transpose(1, 2, 0, 3) if in_pairs else keys.transpose(1, 2, 0)
    return np.concatenate([keys.ravel(), values.transpose(1, 0, 2).ravel()])


class Part(NamedTuple):
    """Tokens start..stop of a sequence, as one step presents them: the cache ends at stop."""

    sequence: Sequence
    start: int
    stop: int


def run(
    kernels, dtype: str, g: Geometry, parts: list[Part], *, scale=0.2, softcap=0.0, threads=2, seed=0
) -> list[np.ndarray]:
    """One step over ``parts``, with pages in an order that ``seed`` shuffles and -1 before the window."""
    random = np.random.default_rng(seed)
    counts = [-(-p.stop // 32) for p in parts]
    order = random.permutation(sum(counts) + 3)
    pages = np.zeros((len(order), g.hkv * (g.d + g.dv) * 32), parts[0].sequence.k.dtype)
    table = np.full((len(parts), max(counts) + 1), -1, np.int32)
    taken = 0
    for s, (part, count) in enumerate(zip(parts, counts, strict=True)):
        first = max(0, part.start - g.window + 1) // 32 if g.window else 0
        for page in range(first, count):
            table[s, page] = order[taken]
            span = slice(page * 32, min(part.stop, page * 32 + 32))
            pages[order[taken]] = page_of(dtype, g, part.sequence.k[span], part.sequence.v[span])
            taken += 1
    lengths = [p.stop - p.start for p in parts]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.concatenate([np.arange(p.start, p.stop) for p in parts]).astype(np.int32)
    q = np.ascontiguousarray(np.concatenate([p.sequence.q[p.start : p.stop] for p in parts]))
    out = np.zeros((len(q), g.hq, g.dv), q.dtype)
    kernels(
        f"{g.kernel}_{dtype}", q, pages, table, starts, positions, out, len(parts), table.shape[1], float(scale),
        float(softcap), threads=threads,
    )  # fmt: skip
    return [out[a:b] for a, b in pairwise(starts)]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("g", GEOMETRIES, ids=lambda g: g.kernel)
@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("length", [1, 32, 147])
def test_attention_is_right(kernels, random, dtype, g, softcap, length):
    s = draw_sequence(random, dtype, g, length)
    (out,) = run(kernels, dtype, g, [Part(s, 0, length)], softcap=softcap)
    error = np.abs(widen(out, dtype) - plain_attention(s, dtype, g, 0.2, softcap))
    assert error.max() < (3e-6 if dtype == "f32" else 2e-2)


@pytest.mark.parametrize("dtype", TYPES)
def test_huge_scores_do_not_overflow(kernels, random, dtype):
    g = GEOMETRIES[0]
    s = draw_sequence(random, dtype, g, 100)
    (out,) = run(kernels, dtype, g, [Part(s, 0, 100)], scale=1e4)
    assert np.isfinite(widen(out, dtype)).all()
    assert np.abs(widen(out, dtype) - plain_attention(s, dtype, g, 1e4, 0)).max() < 0.05


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("g", GEOMETRIES, ids=lambda g: g.kernel)
def test_a_token_has_the_same_bits_in_prefill_and_in_decode(kernels, random, dtype, g):
    """Also: NaN in the unwritten part of the last page counts for nothing."""
    s = draw_sequence(random, dtype, g, 101)
    (whole,) = run(kernels, dtype, g, [Part(s, 0, 101)])
    for t in [0, 1, 30, 31, 32, 33, 63, 64, 95, 96, 100]:
        (alone,) = run(kernels, dtype, g, [Part(s, t, t + 1)], threads=1, seed=t)
        assert (alone[0] == whole[t]).all(), t


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bits_do_not_depend_on_chunks_batches_pages_or_threads(kernels, data):
    dtype = data.draw(st.sampled_from(TYPES))
    g = data.draw(st.sampled_from(GEOMETRIES))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    lengths = data.draw(st.lists(st.integers(1, 140), min_size=1, max_size=4))
    sequences = [draw_sequence(random, dtype, g, n) for n in lengths]
    alone = [run(kernels, dtype, g, [Part(s, 0, len(s.q))], threads=1)[0] for s in sequences]
    # Every sequence in its own chunks; step i runs the i-th chunk of all that have one.
    cuts = [sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=3))}) for n in lengths]
    for step in range(max(len(c) for c in cuts) - 1):
        active = [i for i, c in enumerate(cuts) if step + 1 < len(c)]
        parts = [Part(sequences[i], cuts[i][step], cuts[i][step + 1]) for i in active]
        outs = run(kernels, dtype, g, parts, threads=data.draw(st.integers(1, 3)), seed=data.draw(st.integers(0, 1000)))
        for i, part, out in zip(active, parts, outs, strict=True):
            assert (out == alone[i][part.start : part.stop]).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_an_empty_sequence_in_the_batch_is_passed_over(kernels, random, dtype):
    g = GEOMETRIES[0]
    s = draw_sequence(random, dtype, g, 40)
    together = run(kernels, dtype, g, [Part(s, 40, 40), Part(s, 5, 40), Part(s, 9, 9), Part(s, 39, 40)])
    (alone,) = run(kernels, dtype, g, [Part(s, 0, 40)])
    assert (together[1] == alone[5:]).all() and (together[3] == alone[39:]).all()
