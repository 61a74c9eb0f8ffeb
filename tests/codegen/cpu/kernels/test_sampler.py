"""Sampling against a slow reference, its distribution, and its independence of everything but the row itself."""

import ctypes
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

VOCABULARY = 1000
FUNCTION_SCOPED = [HealthCheck.function_scoped_fixture]


class Row(ctypes.Structure):
    _fields_ = [
        *[("seed", ctypes.c_uint64), ("sample_index", ctypes.c_int64), ("position", ctypes.c_int64)],
        *[(n, ctypes.c_float) for n in ("temperature", "top_p", "min_p")],
        *[(n, ctypes.c_float) for n in ("repetition_penalty", "presence_penalty", "frequency_penalty")],
        *[(n, ctypes.c_int32) for n in ("top_k", "history_start", "history_prompt", "history_stop")],
        *[(n, ctypes.c_int32) for n in ("bias_start", "bias_stop", "mask_row", "top_logprobs")],
    ]


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    sample_index: int = 0
    position: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    prompt: tuple[int, ...] = ()
    output: tuple[int, ...] = ()
    bias: dict[int, float] = field(default_factory=dict)
    mask: frozenset[int] | None = None
    top_logprobs: int = 0


@dataclass(frozen=True)
class Sampled:
    tokens: np.ndarray
    logprobs: np.ndarray
    top_ids: np.ndarray
    top_values: np.ndarray


def sample(kernels, logits: np.ndarray, rows: list[Settings], threads: int = 2) -> Sampled:
    logits = np.ascontiguousarray(logits, np.float32)
    count, vocabulary = logits.shape
    history, bias_ids, bias_values, masks = [7], [3], [9.0], [np.zeros(-(-vocabulary // 32), np.uint32)]
    structs = (Row * count)()
    for struct, s in zip(structs, rows, strict=True):
        for name in ("seed", "sample_index", "position", "temperature", "top_p", "min_p", "top_k", "top_logprobs"):
            setattr(struct, name, getattr(s, name))
        for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
            setattr(struct, name, getattr(s, name))
        struct.history_start, struct.history_prompt = len(history), len(history) + len(s.prompt)
        history += [*s.prompt, *s.output]
        struct.history_stop = len(history)
        struct.bias_start = len(bias_ids)
        bias_ids += list(s.bias)
        bias_values += list(s.bias.values())
        struct.bias_stop = len(bias_ids)
        struct.mask_row = -1
        if s.mask is not None:
            struct.mask_row = len(masks)
            words = np.zeros(-(-vocabulary // 32), np.uint32)
            for i in s.mask:
                words[i // 32] |= np.uint32(1 << (i % 32))
            masks.append(words)
    result = Sampled(
        np.full(count, -9, np.int32),
        np.zeros((count, 3), np.float32),
        np.zeros((count, 20), np.int32),
        np.zeros((count, 20), np.float32),
    )
    kernels(
        "sample_rows",
        logits,
        np.frombuffer(structs, np.uint8),
        np.array(history, np.int32),
        np.array(bias_ids, np.int32),
        np.array(bias_values, np.float32),
        np.stack(masks),
        *(result.tokens, result.logprobs, result.top_ids, result.top_values),
        count,
        vocabulary,
        threads=threads,
    )
    return result


def philox(seed: int, sample_index: int, position: int, ids: np.ndarray) -> np.ndarray:
    """The 32 random bits of each token id, with Python's whole numbers."""
    low = np.uint64(0xFFFFFFFF)
    ids = ids.astype(np.uint64)
    counter = [(ids >> np.uint64(6)) * np.uint64(16) + (ids & np.uint64(15))]
    counter += [np.full_like(ids, v & 0xFFFFFFFF) for v in (position, sample_index)]
    counter += [np.full_like(ids, ((position >> 32 << 16) & 0xFFFFFFFF) ^ (sample_index >> 32))]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        first, second = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = [
            (second >> np.uint64(32)) ^ counter[1] ^ np.uint64(k0),
            second & low,
            (first >> np.uint64(32)) ^ counter[3] ^ np.uint64(k1),
            first & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    word = (ids >> np.uint64(4)) & np.uint64(3)
    return np.choose(word.astype(int), counter)


def gumbel(s: Settings, ids: np.ndarray) -> np.ndarray:
    v = np.minimum((philox(s.seed, s.sample_index, s.position, ids) + 0.5) * 2.0**-32, 1 - 2.0**-24)
    return -np.log(-np.log1p(-v))


def adjusted(logits: np.ndarray, s: Settings) -> np.ndarray:
    z = logits.astype(np.float64).copy()
    if s.mask is not None:
        z[[i for i in range(len(z)) if i not in s.mask]] = -np.inf
    for i, value in s.bias.items():
        z[i] += value
    for i in {*s.prompt, *s.output}:
        z[i] = z[i] / s.repetition_penalty if z[i] > 0 else z[i] * s.repetition_penalty
    for i in set(s.output):
        z[i] -= s.frequency_penalty * s.output.count(i) + s.presence_penalty
    return z


def kept(z: np.ndarray, s: Settings) -> np.ndarray:
    """Which ids remain of z, the adjusted logits over the temperature."""
    keep = z > -np.inf
    if s.min_p > 0:
        keep &= z >= z.max() + np.log(s.min_p)
    order = np.lexsort((np.arange(len(z)), -z))
    order = order[keep[order]]
    if s.top_k > 0:
        order = order[: s.top_k]
    if s.top_p < 1:
        mass = np.exp(z[order] - z.max())
        order = order[: 1 + int((np.cumsum(mass) < s.top_p * mass.sum()).sum())]
    out = np.zeros(len(z), bool)
    out[order] = True
    return out


def log_softmax(z: np.ndarray) -> np.ndarray:
    top = z.max()
    return z - top - np.log(np.exp(z - top).sum())


def check(result: Sampled, row: int, logits: np.ndarray, s: Settings) -> None:
    token = result.tokens[row]
    z = adjusted(logits, s)
    if s.temperature == 0:
        assert z[token] >= z.max() - 1e-5
        exact = [log_softmax(logits)[token]] * 2 + [0.0]
    else:
        z /= s.temperature
        keep = kept(z, s)
        assert keep[token]
        noisy = np.where(keep, z + gumbel(s, np.arange(len(z))), -np.inf)
        assert noisy[token] >= noisy.max() - 1e-4
        sampled = log_softmax(np.where(keep, z, -np.inf))[token]
        exact = [log_softmax(logits)[token], log_softmax(logits / s.temperature)[token], sampled]
    assert np.allclose(result.logprobs[row], exact, rtol=1e-5, atol=2e-5)


ids = st.integers(0, VOCABULARY - 1)
any_settings = st.builds(
    Settings,
    seed=st.integers(0, 2**64 - 1),
    sample_index=st.integers(0, 2**40),
    position=st.integers(0, 2**40),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.sampled_from([1.0, 0.9, 0.3, 0.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 200, 5000]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5, 0.7]),
    prompt=st.lists(ids, max_size=20).map(tuple),
    output=st.lists(ids, max_size=20).map(tuple),
    bias=st.dictionaries(ids, st.sampled_from([-100.0, -1.0, 5.0]), max_size=5),
    mask=st.none() | st.frozensets(ids, min_size=1, max_size=40),
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=FUNCTION_SCOPED)
@given(
    rows=st.lists(any_settings, min_size=1, max_size=5), seed=st.integers(0, 1000), spread=st.sampled_from([1, 4, 30])
)
def test_sampling_follows_the_reference(kernels, rows, seed, spread):
    logits = (np.random.default_rng(seed).normal(size=(len(rows), VOCABULARY)) * spread).astype(np.float32)
    result = sample(kernels, logits, rows)
    for i, s in enumerate(rows):
        check(result, i, logits[i].astype(np.float64), s)
    for i, s in enumerate(rows):
        alone = sample(kernels, logits[i : i + 1], [s], threads=1)
        assert alone.tokens[0] == result.tokens[i]
        assert (alone.logprobs[0].view(np.uint32) == result.logprobs[i].view(np.uint32)).all()


def test_greedy_takes_the_lowest_id_of_a_tie(kernels):
    logits = np.zeros((3, VOCABULARY), np.float32)
    logits[1, [900, 17, 950]] = 5
    logits[2, 999] = 1
    result = sample(kernels, logits, [Settings(temperature=0)] * 3)
    assert result.tokens.tolist() == [0, 17, 999]
    assert (result.logprobs[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("top_k", "top_p", "wanted"), [(3, 1.0, 3), (1, 1.0, 1), (0, 0.0, 1), (0, 0.25, 250), (8, 0.5, 4)]
)
def test_ties_at_the_cut_go_to_the_lower_id(kernels, top_k, top_p, wanted):
    """All logits are equal: exactly the first ids remain."""
    rows = [Settings(seed=i, top_k=top_k, top_p=top_p) for i in range(300)]
    result = sample(kernels, np.zeros((300, VOCABULARY), np.float32), rows)
    assert result.tokens.max() < wanted
    assert np.allclose(result.logprobs[:, 2], -np.log(wanted), atol=1e-5)


def test_frequencies_match_the_distribution(kernels):
    logits = np.log(np.array([[0.5, 0.25, 0.125, 0.1, 0.02, 0.005]], np.float32))
    rows = [Settings(seed=1234, position=i) for i in range(20_000)]
    result = sample(kernels, np.repeat(logits, len(rows), 0), rows)
    counts = np.bincount(result.tokens, minlength=6) / len(rows)
    expected = np.exp(logits[0])
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected / len(rows)))


def test_each_coordinate_changes_the_draw(kernels):
    base = [Settings(seed=5), Settings(seed=5 + 2**32), Settings(seed=6)]
    base += [Settings(seed=5, position=1), Settings(seed=5, sample_index=1)]
    base += [Settings(seed=5, position=2**32), Settings(seed=5, sample_index=2**32)]
    logits = np.zeros((len(base), VOCABULARY), np.float32)
    assert len(set(sample(kernels, logits, base).tokens.tolist())) == len(base)


def test_top_logprobs_are_sorted_with_ties_by_id(kernels, random):
    logits = random.integers(0, 30, (4, VOCABULARY)).astype(np.float32)
    logits[3, 10:] = -np.inf
    wanted = [0, 1, 20, 20]
    result = sample(kernels, logits, [Settings(top_logprobs=n) for n in wanted])
    for row, n in enumerate(wanted):
        order = np.lexsort((np.arange(VOCABULARY), -logits[row]))[:n]
        assert result.top_ids[row].tolist() == order.tolist() + [-1] * (20 - n)
        exact = log_softmax(logits[row].astype(np.float64))[order]
        assert np.allclose(result.top_values[row, :n], exact, atol=1e-5)
        assert (result.top_values[row, n:] == -np.inf).all()


def test_no_token_is_made_up(kernels):
    """NaN or +inf gives -1 so that it is reported; a mask that allows nothing gives -2."""
    logits = np.zeros((6, VOCABULARY), np.float32)
    logits[0, 999], logits[1, 3] = np.nan, np.inf
    logits[4] = -np.inf
    rows = [Settings()] * 2 + [Settings(mask=frozenset()), Settings(mask=frozenset({998})), Settings()]
    result = sample(kernels, logits, [*rows, Settings(temperature=0, bias={4: np.nan})])
    assert result.tokens.tolist() == [-1, -1, -2, 998, -2, -1]
    assert np.isnan(result.logprobs[[0, 1, 2, 5]]).all()


def test_a_token_outside_the_vocabulary_in_the_history_is_passed_over(kernels):
    s = Settings(temperature=0, repetition_penalty=2.0, frequency_penalty=1.0, prompt=(-1, 5000), output=(0, 5000, -7))
    logits = np.full((1, VOCABULARY), 1.0, np.float32)
    assert sample(kernels, logits, [s]).tokens[0] == 1


@pytest.mark.parametrize("vocabulary", [1, 15, 16, 63, 65, 4097])
def test_small_and_ragged_vocabularies(kernels, random, vocabulary):
    logits = random.normal(size=(8, vocabulary)).astype(np.float32)
    rows = [Settings(seed=i, top_p=0.9, top_k=40, temperature=0.7, top_logprobs=20) for i in range(8)]
    result = sample(kernels, logits, rows)
    for i, s in enumerate(rows):
        check(result, i, logits[i].astype(np.float64), s)
        assert (result.top_ids[i] >= 0).sum() == min(20, vocabulary)


def test_token_logprob(kernels, random):
    logits = (5 * random.normal(size=(6, VOCABULARY))).astype(np.float32)
    targets = random.integers(0, VOCABULARY, 6).astype(np.int32)
    logits[4, 2], targets[5] = np.nan, VOCABULARY
    out, best = np.zeros(6, np.float32), np.zeros(6, np.int32)
    kernels("score_tokens", logits, targets, out, best, 6, VOCABULARY)
    exact = [log_softmax(row.astype(np.float64))[t] for row, t in zip(logits[:4], targets, strict=False)]
    assert np.allclose(out[:4], exact, atol=1e-5) and np.isnan(out[4:]).all()
    assert best.tolist() == [*logits[:4].argmax(1).tolist(), -1, int(logits[5].argmax())]
