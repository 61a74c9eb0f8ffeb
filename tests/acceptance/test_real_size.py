"""The promises at a real model's size: the geometry of Qwen3-0.6B, bfloat16, random weights, a tokenizer of 150k."""

import resource

import numpy as np
import pytest
from xllmc.bench.models import make_model
from xllmc.compiler.driver import compile_model
from xllmc.compiler.options import CompileOptions
from xllmc.runtime.engine import Engine
from xllmc.runtime.sampling import SamplingParams

from tests.stepping import one_prefill, random_schedule, step_logits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("real")
    options = CompileOptions(isa=("native",), random_weights=0)
    compile_model(make_model(directory / "model"), directory / "model.engine", options)
    return directory / "model.engine"


def test_logits_do_not_depend_on_company_chunks_or_threads(engine_dir):
    rng = np.random.default_rng(1)
    sequences = [rng.integers(0, 150_000, n).tolist() for n in (70, 5, 33, 64, 1, 17, 40)]
    with Engine.load(engine_dir, threads=1, kv_tokens=1024, max_rows=512) as one:
        alone = [step_logits(one, [s], one_prefill(len(s)))[0] for s in sequences]
    with Engine.load(engine_dir, threads=2, kv_tokens=1024, max_rows=512) as two:
        schedule = random_schedule(rng, [len(s) for s in sequences])
        together = step_logits(two, sequences, schedule)
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_the_tokenizer_goes_round_and_text_comes_out(engine_dir):
    with Engine.load(engine_dir, kv_tokens=256) as engine:
        ids = engine.tokenizer.encode("def f(x): return 'é'")
        assert engine.tokenizer.decode(ids) == "def f(x): return 'é'"
        (completion,) = engine.generate([ids], SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True))
    assert len(completion.token_ids) == 8


def test_compiling_took_less_than_four_gigabytes(engine_dir):
    """Of this process, which compiled it, and of the compilers it started."""
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        assert resource.getrusage(who).ru_maxrss * 1024 < 4e9
