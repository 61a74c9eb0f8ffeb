"""A request's logits and tokens have the same bits in any company, chunking and number of threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xllmc.runtime.sampling import SamplingParams

from tests.checkpoints import FAMILIES, probe_tokens
from tests.stepping import one_prefill, random_schedule, step_logits

EXAMPLES = settings(max_examples=12)
ENGINES = [(family, dtype) for family in FAMILIES for dtype in ("fp32", "bf16")]


@pytest.mark.parametrize(("family", "dtype"), ENGINES)
def test_logits_do_not_depend_on_batch_chunks_or_threads(family: str, dtype: str, loaded):
    engines = {threads: loaded(family, dtype, threads) for threads in (1, 2)}

    @EXAMPLES
    @given(
        length=st.integers(1, 100),
        batch=st.sampled_from([1, 2, 7, 32]),
        threads=st.sampled_from([1, 2]),
        seed=st.integers(0, 2**32 - 1),
    )
    def check(length: int, batch: int, threads: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        tokens = probe_tokens(length, seed)
        (alone,) = step_logits(engines[1], [tokens], one_prefill(length))
        place = int(rng.integers(batch))
        sequences = [probe_tokens(int(rng.integers(1, 70)), seed + 1 + s) for s in range(batch)]
        sequences[place] = tokens
        schedule = random_schedule(rng, [len(sequence) for sequence in sequences])
        together = step_logits(engines[threads], sequences, schedule)[place]
        assert np.array_equal(together.view(np.uint32), alone.view(np.uint32))

    check()


@pytest.mark.parametrize(("family", "dtype"), ENGINES)
def test_tokens_do_not_depend_on_batch_or_threads(family: str, dtype: str, loaded):
    engines = {threads: loaded(family, dtype, threads) for threads in (1, 2)}

    @EXAMPLES
    @given(
        length=st.integers(1, 70),
        batch=st.sampled_from([2, 7, 32]),
        temperature=st.sampled_from([0.0, 0.7, 1.5]),
        top_p=st.sampled_from([0.8, 1.0]),
        top_k=st.sampled_from([0, 20]),
        seed=st.integers(0, 2**32 - 1),
    )
    def check(length: int, batch: int, temperature: float, top_p: float, top_k: int, seed: int) -> None:
        params = SamplingParams(
            temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, max_tokens=6, ignore_eos=True
        )
        prompts = [probe_tokens(length + s, seed + s) for s in range(batch)]
        (alone,) = engines[1].generate([prompts[-1]], params)
        together = engines[2].generate(prompts, params)[-1]
        assert together.token_ids == alone.token_ids

    check()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_method_gives_the_bits_of_a_step(family: str, loaded):
    tokens = probe_tokens(90)
    engine = loaded(family, "bf16")
    (stepped,) = step_logits(engine, [tokens], one_prefill(90))
    assert np.array_equal(engine.logits(tokens).view(np.uint32), stepped.view(np.uint32))
