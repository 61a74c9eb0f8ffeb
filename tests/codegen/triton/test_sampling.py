"""Sampling on the interpreter against the CPU's kernels, which state what it means, and a slow reference."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.compile import compile_cubin, source_file
from xllmc.codegen.triton.interpret.requests import InterpretedKernel, Request
from xllmc.codegen.triton.kernel import Argument, Config, named_source, render
from xllmc.codegen.triton.lower import lower
from xllmc.codegen.triton.providers.sampling import WORDS
from xllmc.runtime.artifact.schema import Pointer
from xllmc.runtime.sampling import SAMPLING_ROW

from tests.codegen.cpu.kernels.test_sampler import Sampled, Settings, check, log_softmax, philox, sample
from tests.codegen.triton.checking import check_op
from tests.codegen.triton.interpreted import Interpreted, interpret
from tests.codegen.triton.sampling import Kernels, on_cpu, on_device, sampling_program
from tests.programs import program

VOCABULARY = 5003
"""Three parts, the last of which is ragged."""


class Both(NamedTuple):
    device: Kernels
    cpu: Kernels


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    work = [tmp_path_factory.mktemp(name) for name in ("device", "cpu")]
    return Both(on_device(VOCABULARY, work[0]), on_cpu(VOCABULARY, work[1]))


def assert_equal(found: Sampled, expected: Sampled) -> None:
    """The same tokens; log-probabilities as near as sums in float32 are to sums in double."""
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.top_ids.tolist() == expected.top_ids.tolist()
    for mine, its in ((found.logprobs, expected.logprobs), (found.top_values, expected.top_values)):
        assert np.allclose(mine, its, rtol=2e-6, atol=5e-6, equal_nan=True)


def check_both(both: Both, logits: np.ndarray, rows: list[Settings]) -> Sampled:
    found = sample(both.device, logits, rows)
    assert_equal(found, sample(both.cpu, logits, rows))
    return found


ids = st.integers(0, VOCABULARY - 1)
any_settings = st.builds(
    Settings,
    seed=st.integers(0, 2**64 - 1),
    sample_index=st.integers(0, 2**40),
    position=st.integers(0, 2**40),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.sampled_from([1.0, 0.9, 0.3, 0.0, 1e-9]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 200, 9000]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5, 0.7]),
    prompt=st.lists(ids, max_size=80).map(tuple),
    output=st.lists(ids | st.integers(0, 3), max_size=80).map(tuple),
    bias=st.dictionaries(ids, st.sampled_from([-np.inf, -100.0, -1.0, 5.0]), max_size=40),
    mask=st.none() | st.frozensets(ids, min_size=1, max_size=40),
    top_logprobs=st.sampled_from([0, 1, 20]),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    rows=st.lists(any_settings, min_size=1, max_size=3), seed=st.integers(0, 1000), spread=st.sampled_from([1, 4, 30])
)
def test_every_setting_chooses_what_the_cpu_chooses(both: Both, rows: list[Settings], seed: int, spread: int):
    logits = (np.random.default_rng(seed).normal(size=(len(rows), VOCABULARY)) * spread).astype(np.float32)
    check_both(both, logits, rows)


@pytest.mark.parametrize("spread", [1, 4])
@pytest.mark.parametrize(
    "cut",
    [
        {"top_k": 1},
        {"top_k": 30},
        {"top_k": 3000},
        {"top_p": 0.5},
        {"top_p": 0.99},
        {"min_p": 0.3},
        {"min_p": 1e-4},
        {"top_k": 50, "top_p": 0.8},
        {"top_k": 900, "top_p": 0.7, "min_p": 0.002},
        {"top_p": 0.97, "min_p": 0.001},
    ],
    ids=str,
)
def test_candidates_are_cut_where_the_cpu_cuts_them(both: Both, cut: dict, spread: int):
    """One token more or less would show in the third log-probability, whose sum runs over what remains."""
    logits = (np.random.default_rng(7).normal(size=(2, VOCABULARY)) * spread).astype(np.float32)
    rows = [Settings(seed=1, **cut), Settings(seed=2, temperature=0.8, bias={17: 1.0}, **cut)]
    check_both(both, logits, rows)


@pytest.mark.parametrize(
    ("top_k", "top_p", "wanted"),
    [(3, 1.0, 3), (1, 1.0, 1), (0, 0.0, 1), (0, 0.25, 1251), (8, 0.5, 4), (2500, 1.0, 2500)],
)
def test_ties_at_the_cut_go_to_the_lower_id(both: Both, top_k: int, top_p: float, wanted: int):
    """All logits are equal: exactly the first ids remain."""
    rows = [Settings(seed=i, top_k=top_k, top_p=top_p) for i in range(3)]
    result = check_both(both, np.zeros((3, VOCABULARY), np.float32), rows)
    assert result.tokens.max() < wanted
    assert np.allclose(result.logprobs[:, 2], -np.log(wanted), atol=1e-5)


def test_few_ties_at_the_cut_are_found_in_the_lists(both: Both):
    logits = np.full((4, VOCABULARY), -5, np.float32)
    logits += np.random.default_rng(3).normal(size=logits.shape).astype(np.float32) * 0.1
    logits[:, [4000, 77, 2047, 2048, 5002, 64]] = 3
    logits[:, 9] = 3.5
    rows = [Settings(seed=i, top_k=k, top_p=p) for i, (k, p) in enumerate([(4, 1.0), (2, 1.0), (6, 0.5), (0, 0.4)])]
    result = check_both(both, logits, rows)
    weights = np.exp([0.0, 0.5])
    assert np.allclose(result.logprobs[1, 2], np.log(weights[int(result.tokens[1] == 9)] / weights.sum()), atol=1e-5)


def test_zeros_of_both_signs_are_equal(both: Both):
    logits = np.full((3, VOCABULARY), -1, np.float32)
    logits[:, [10, 30]], logits[:, [20, 40]] = 0.0, -0.0
    rows = [Settings(temperature=0, top_logprobs=6), Settings(top_k=2), Settings(seed=4, top_k=3, top_p=0.9)]
    result = check_both(both, logits, rows)
    assert result.tokens[0] == 10 and result.top_ids[0, :4].tolist() == [10, 20, 30, 40]


def test_no_token_is_made_up(both: Both):
    """NaN or +inf gives -1 so that it is reported; a mask that allows nothing gives -2."""
    logits = np.zeros((8, VOCABULARY), np.float32)
    logits[0, 5000], logits[1, 3] = np.nan, np.inf
    logits[4] = -np.inf
    logits[6, 100:] = -np.inf
    rows = [Settings(top_p=0.5)] * 2 + [Settings(mask=frozenset()), Settings(mask=frozenset({998})), Settings()]
    rows += [Settings(temperature=0, bias={4: np.nan}), Settings(top_logprobs=20, top_k=200)]
    rows += [Settings(bias=dict.fromkeys(range(VOCABULARY), -np.inf), top_k=5)]
    result = check_both(both, logits, rows)
    assert result.tokens[:6].tolist() == [-1, -1, -2, 998, -2, -1] and result.tokens[7] == -2
    assert np.isnan(result.logprobs[[0, 1, 2, 4, 5, 7]]).all()


def test_top_logprobs_are_sorted_with_ties_by_id(both: Both):
    logits = np.random.default_rng(0).integers(0, 30, (4, VOCABULARY)).astype(np.float32)
    logits[3, 10:] = -np.inf
    result = check_both(both, logits, [Settings(top_logprobs=n) for n in (0, 1, 20, 20)])
    assert result.top_ids[3].tolist() == np.lexsort((np.arange(VOCABULARY), -logits[3]))[:20].tolist()


def test_penalties_tell_prompt_from_output(both: Both):
    """Few tokens have all the mass, so that each one's penalty shows in the sum of the third log-probability."""
    logits = np.full((5, VOCABULARY), -20, np.float32)
    logits[:, :12] = np.linspace(-1, 1, 12)
    prompt, output = (0, 1, 2, 2, 11) * 30, (3, 3, 3, 4, 2, 10) * 20 + (5,)
    penalties = [
        {"repetition_penalty": 1.5},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.01},
        {"repetition_penalty": 0.7, "presence_penalty": -0.3, "frequency_penalty": 0.02},
        {"frequency_penalty": 0.01, "temperature": 0.5},
    ]
    check_both(both, logits, [Settings(seed=i, prompt=prompt, output=output, **p) for i, p in enumerate(penalties)])


def test_a_token_outside_the_vocabulary_in_the_history_is_passed_over(both: Both):
    s = Settings(temperature=0, repetition_penalty=2.0, frequency_penalty=1.0, prompt=(-1, 5003), output=(0, 5100, -7))
    assert check_both(both, np.ones((1, VOCABULARY), np.float32), [s]).tokens[0] == 1


def test_a_row_has_the_same_bits_alone(both: Both):
    logits = np.random.default_rng(5).normal(size=(3, VOCABULARY)).astype(np.float32) * 3
    rows = [Settings(seed=1), Settings(seed=2, top_p=0.6, top_logprobs=3), Settings(seed=3, output=(1, 2), top_k=7)]
    together = sample(both.device, logits, rows)
    for i, s in enumerate(rows):
        alone = sample(both.device, logits[i : i + 1], [s])
        assert alone.tokens[0] == together.tokens[i]
        assert (alone.logprobs[0].view(np.uint32) == together.logprobs[i].view(np.uint32)).all()


@pytest.mark.parametrize("vocabulary", [1, 15, 63, 64, 65, 2048, 2113])
def test_small_and_ragged_vocabularies(vocabulary: int, tmp_path: Path):
    logits = np.random.default_rng(1).normal(size=(3, vocabulary)).astype(np.float32)
    rows = [Settings(seed=i, top_p=0.9, top_k=40, temperature=0.7, top_logprobs=20) for i in range(2)] + [Settings()]
    result = sample(on_device(vocabulary, tmp_path), logits, rows)
    for i, s in enumerate(rows):
        check(result, i, logits[i].astype(np.float64), s)
    assert ((result.top_ids[:2] >= 0).sum(1) == min(20, vocabulary)).all()


def test_a_vocabulary_of_real_size(tmp_path: Path):
    vocabulary = 151_936
    for name in ("device", "cpu"):
        (tmp_path / name).mkdir()
    both = Both(on_device(vocabulary, tmp_path / "device"), on_cpu(vocabulary, tmp_path / "cpu"))
    logits = (np.random.default_rng(2).normal(size=(3, vocabulary)) * 2.5).astype(np.float32)
    rows = [Settings(temperature=0, top_logprobs=20), Settings(seed=11, temperature=0.8)]
    rows += [Settings(seed=12, temperature=0.6, top_k=20, top_p=0.95, output=(5, 151_935), presence_penalty=1.0)]
    check_both(both, logits, rows)


def test_frequencies_match_the_distribution(tmp_path: Path):
    """Pearson's chi-square of 120 draws: one seed in 10,000 would pass the bound by chance."""
    exact = np.array([0.35, 0.3, 0.2, 0.1, 0.05])
    logits = np.repeat(np.log(exact)[None].astype(np.float32), 120, 0)
    rows = [Settings(seed=99, position=i) for i in range(120)]
    counts = np.bincount(sample(on_device(5, tmp_path), logits, rows).tokens, minlength=5)
    assert ((counts - 120 * exact) ** 2 / (120 * exact)).sum() < 23.5


NOISE = """
{% include "sample_settings.py.j2" %}


{% include "sample_noise.py.j2" %}


@triton.jit
{{ signature }}
    counter = tl.arange(0, 64)
    bits0, bits1, bits2, bits3 = philox(rows, counter)
    tl.store(words + counter, bits0)
    tl.store(words + 64 + counter, bits1)
    tl.store(words + 128 + counter, bits2)
    tl.store(words + 192 + counter, bits3)
    tl.store(noise + counter, gumbel(bits0))
"""


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**64 - 1), sample_index=st.integers(0, 2**63 - 1), position=st.integers(0, 2**63 - 1))
def test_random_words_are_those_of_philox(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sample_index: int, position: int
):
    dtypes = {"rows": "i32", "words": "u32", "noise": "f32"}
    operands = {name: Argument(Pointer(kind="input", name=name), dtype) for name, dtype in dtypes.items()}
    text = render(NOISE, tuple(dtypes), {"word": WORDS, "vocabulary": 64})
    source = named_source("noise", text, operands, Config())
    path = tmp_path_factory.getbasetemp() / f"{source.name}.py"
    if not path.exists():
        path.write_text(source_file(source))
    record = np.zeros(1, SAMPLING_ROW)
    record["seed"], record["sample_index"], record["position"] = seed, sample_index, position
    memory = {"sizes": np.zeros(5, np.int32), "rows": record.view(np.int32)}
    memory |= {"words": np.zeros(256, np.uint32), "noise": np.zeros(64, np.float32)}
    kernel = InterpretedKernel(path, source.name, list(source.pointers), [(n, 0) for n in memory], (1, 1, 1))
    after = interpret(Request([kernel], memory))
    # Word w of counter 16 * block + lane is token 64 * block + 16 * w + lane.
    tokens = np.arange(256).reshape(4, 4, 16).transpose(1, 0, 2).reshape(-1)
    assert after["words"].tolist() == philox(seed, sample_index, position, tokens).tolist()
    v = np.minimum(((after["words"][:64] + 0.5) * 2.0**-32).astype(np.float32), 1 - 2.0**-24).astype(np.float64)
    assert np.allclose(after["noise"], -np.log(-np.log1p(-v)), rtol=1e-6, atol=1e-6)


def test_words_are_where_the_runtime_writes_them():
    fields = SAMPLING_ROW.fields
    assert fields is not None
    assert {name: fields[name][1] // 4 for name in fields} == WORDS


@pytest.mark.parametrize("vocabulary", [50, 5003, 151_936])
def test_token_logprob(vocabulary: int, tmp_path: Path):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, vocabulary, generator=generator) * 5
    logits[4] -= 1000
    logits[3, ::2] = -torch.inf
    targets = torch.randint(0, vocabulary // 2, (5,), generator=generator).int() * 2 + 1
    check_op(
        "token_logprob",
        ["%logits", "%targets"],
        {"logits": f"f32[R, {vocabulary}]", "targets": "i32[R]"},
        {},
        {},
        "f32",
        tmp_path,
        tokens=5,
        captured=7,
        values={"logits": logits, "targets": targets},
    )


def test_token_logprob_of_what_is_no_number(tmp_path: Path):
    text = "func forward(%logits: f32[R, 70], %targets: i32[R]) -> (out) {\n"
    text += "  %y: f32[R] = token_logprob(%logits, %targets)\n  return %y\n}"
    logits = torch.zeros(6, 70)
    logits[0, 69], logits[1, 5], logits[5, 3:] = torch.nan, torch.inf, -torch.inf
    targets = torch.tensor([0, 0, 70, -1, 69, 4], dtype=torch.int32)
    out = Interpreted(program(text), {}, tmp_path)({"logits": logits, "targets": targets}, {"R": 6})["out"]
    assert out[:4].isnan().all() and out[5] == -torch.inf
    assert np.allclose(float(out[4]), log_softmax(np.zeros(70))[0], atol=1e-6)


def check_resources(vocabulary: int, architecture: str, work: Path) -> None:
    machine = ARCHITECTURES[architecture]
    for source in lower(sampling_program(vocabulary), machine).sources:
        kernel = compile_cubin(source, machine, work).kernel
        assert kernel.spilled_bytes == 0
        assert kernel.registers is not None and kernel.registers * kernel.warps * 32 <= 65536


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_without_spills(architecture: str, tmp_path: Path):
    check_resources(151_936, architecture, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("vocabulary", [128_256, 256_000, 50_257])
def test_kernels_of_other_vocabularies_compile_without_spills(vocabulary: int, architecture: str, tmp_path: Path):
    check_resources(vocabulary, architecture, tmp_path)
