import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xllmc.runtime.artifact.errors import NumericError, OptionError
from xllmc.runtime.engine import Engine
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.requests import Completion, RequestOptions
from xllmc.runtime.runner import Runner
from xllmc.runtime.sampling import SamplingParams

from tests.runtime.toy import END, VOCAB, checkpoint, reference_logits, write_toy

GREEDY = SamplingParams(temperature=0, max_tokens=12)


def alone(tokens: list[int], count: int) -> tuple[int, ...]:
    """What greedy decoding gives by the reference."""
    tokens = list(tokens)
    start = len(tokens)
    for _ in range(count):
        tokens.append(int(reference_logits(checkpoint(0), tokens)[-1].argmax()))
        if tokens[-1] == END:
            break
    return tuple(tokens[start:])


def settle(engine: Engine) -> None:
    """Wait until cancelled requests are gone, and see that they left nothing."""
    until = time.monotonic() + 5
    while engine.stats().running or any(group.in_use for group in engine.stats().groups):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_greedy_is_what_the_reference_says(engine: Engine) -> None:
    prompts = [[7] * 3, list(range(60)), [250]]
    done = engine.generate(prompts, GREEDY)
    assert [c.prompt_index for c in done] == [0, 1, 2]
    for prompt, completion in zip(prompts, done, strict=True):
        assert completion.token_ids == alone(prompt, 12)
        assert completion.prompt_token_ids == tuple(prompt)
        assert completion.versions == (0,) * len(completion.token_ids)
    settle(engine)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(
    prompts=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=90), min_size=1, max_size=14),
    seed=st.integers(0, 2**64 - 1),
)
def test_the_batch_changes_no_token(engine: Engine, toy_engine: Path, prompts: list[list[int]], seed: int) -> None:
    """Chunked prefills, windows that slide, pools that fill up and rows that sample: all as if alone."""
    params = SamplingParams(seed=seed, max_tokens=20, logprobs=2, presence_penalty=0.5, top_p=0.9)
    with Engine.load(toy_engine, threads=1, kv_tokens=224) as other:
        for prompt, got in zip(prompts, engine.generate(prompts, params), strict=True):
            (expected,) = other.generate([prompt], params)
            assert (got.token_ids, got.logprobs, got.text) == (expected.token_ids, expected.logprobs, expected.text)
    assert [group.in_use for group in engine.stats().groups] == [0, 0]


def test_samples_of_a_prompt_differ_and_a_seed_repeats_them(engine: Engine) -> None:
    params = SamplingParams(n=4, seed=11, max_tokens=15)
    first, second = engine.generate("abc", params), engine.generate(["abc"], params)
    assert first == second
    assert [c.sample_index for c in first] == [0, 1, 2, 3]
    assert len({c.token_ids for c in first}) == 4
    unseeded = SamplingParams(max_tokens=15)
    assert engine.generate("abc", unseeded) != engine.generate("abc", unseeded)


def test_reasons_to_end(engine: Engine) -> None:
    (length,) = engine.generate("x", GREEDY)
    assert length.finish_reason == "length" and len(length.token_ids) == 12
    third = length.token_ids[2]
    before = length.token_ids.index(third)
    by_id = SamplingParams(temperature=0, stop_token_ids=(third,))
    (stopped,) = engine.generate("x", by_id)
    assert stopped.finish_reason == "stop" and stopped.token_ids == length.token_ids[: before + 1]
    certain = SamplingParams(logit_bias={END: 1e9}, max_tokens=3)
    (ended,) = engine.generate("x", certain)
    assert (ended.finish_reason, ended.token_ids, ended.text) == ("stop", (END,), "")
    (on,) = engine.generate("x", SamplingParams(logit_bias={END: 1e9}, max_tokens=3, ignore_eos=True))
    assert (on.finish_reason, on.token_ids) == ("length", (END,) * 3)


def test_stop_strings_are_cut_off_and_token_ids_kept(engine: Engine) -> None:
    letters = engine.tokenizer.encode("ab")
    params = SamplingParams(seed=1, logit_bias=dict.fromkeys(letters, 1e4), max_tokens=100, stop=("ba",))
    (done,) = engine.generate("x", params)
    assert done.finish_reason == "stop"
    whole = engine.tokenizer.decode(done.token_ids)
    assert whole.endswith("ba") and done.text == whole[:-2]
    assert "".join(chunk.text for chunk in engine.stream("x", params)) == done.text


def test_the_context_ends_every_request(engine: Engine) -> None:
    (done,) = engine.generate([[1] * 190], SamplingParams(temperature=0, max_tokens=100, ignore_eos=True))
    assert len(done.token_ids) == 10 and done.finish_reason == "length"


def test_logprobs_come_when_asked_for(engine: Engine) -> None:
    (plain,) = engine.generate("x", GREEDY)
    assert plain.logprobs is None
    (done,) = engine.generate("x", SamplingParams(temperature=0.7, seed=1, max_tokens=5, logprobs=3))
    assert done.logprobs is not None and len(done.logprobs) == 5
    ids = [*done.prompt_token_ids, *done.token_ids]
    scores = engine.score(ids)[len(done.prompt_token_ids) :]
    assert np.allclose([entry.model for entry in done.logprobs], scores, atol=1e-5)
    assert all(len(entry.top) == 3 and entry.top[0][1] >= entry.model - 1e-6 for entry in done.logprobs)


BAD_PROMPTS = [
    ([], "at least one token"),
    ([VOCAB], "from 0 to 259, got 260"),
    ([-1], "got -1"),
    ([1] * 200, "shorter than the context of 200 tokens, got 200"),
]


@pytest.mark.parametrize(("prompt", "message"), BAD_PROMPTS)
def test_bad_prompts_are_refused(engine: Engine, prompt: list[int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        engine.generate([[1], prompt], GREEDY)
    settle(engine)


def test_a_prompt_that_can_never_fit_is_an_error(toy_engine: Path) -> None:
    with Engine.load(toy_engine, kv_tokens=64) as engine:
        with pytest.raises(OptionError, match="larger kv_tokens"):
            engine.generate([[1], [1] * 60], GREEDY)
        assert len(engine.generate([[1] * 52], GREEDY)) == 1


def test_bad_parameters_are_refused(engine: Engine) -> None:
    with pytest.raises(OptionError, match="logit_bias and stop_token_ids must be from 0 to 259, got 260"):
        engine.generate("x", SamplingParams(stop_token_ids=(VOCAB,)))


def test_a_request_that_cannot_be_sampled_fails_alone(engine: Engine) -> None:
    forbidden = SamplingParams(logit_bias=dict.fromkeys(range(VOCAB), float("-inf")))
    with pytest.raises(OptionError, match="logit_bias leaves none"):
        engine.generate("x", forbidden)
    settle(engine)
    broken = checkpoint(0)
    broken["all.weight"][5] = np.nan
    engine.update_weights(broken)
    with pytest.raises(NumericError, match="must be finite"):
        engine.generate([[5]], GREEDY)
    assert engine.generate([[6]], GREEDY)
    settle(engine)


def test_what_one_request_cannot_have_fails_no_other(engine: Engine) -> None:
    stream = engine.stream([1, 2], SamplingParams(max_tokens=60, ignore_eos=True))
    next(stream)
    spoilt = SamplingParams(logit_bias={3: 1.0})
    spoilt.logit_bias[3] = float("nan")  # type: ignore[index]
    with pytest.raises(OptionError, match="bias_values"):
        engine.generate([[1]], spoilt)
    assert sum(1 for _ in stream) == 59
    settle(engine)


PROMPTS = {
    "a flat list": ([5, 6], r"wrap a prompt's ids: \[\[5, 6\]\]"),
    "a flat array": (np.array([5, 6]), "wrap a prompt's ids"),
    "none": (None, "prompts must be text, or a list .* got NoneType"),
    "a number": (5, "got int"),
    "bytes": (b"abc", "got bytes"),
    "bytes within": ([b"abc"], "prompt token ids must be a list of token ids, got bytes"),
    "a mapping": ({"a": 1}, "got dict"),
    "floats": ([[1.7]], r"prompt token ids must be whole numbers, got 1\.7"),
    "floats of numpy": ([np.zeros(2)], "must be an integer array"),
    "text among ids": ([["a"]], "whole numbers, got 'a'"),
    "truth": ([[True]], "whole numbers, got True"),
    "half a character": ("a\ud800b", "valid Unicode, got '.ud800' at character 1"),
}


@pytest.mark.parametrize(("prompts", "message"), PROMPTS.values(), ids=PROMPTS)
def test_prompts_of_another_kind_are_refused(engine: Engine, prompts: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        engine.generate(prompts, GREEDY)


def test_ids_may_come_in_arrays(engine: Engine) -> None:
    expected = [c.token_ids for c in engine.generate([[1, 2], [3, 4]], GREEDY)]
    assert [c.token_ids for c in engine.generate(np.array([[1, 2], [3, 4]]), GREEDY)] == expected  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="params must be SamplingParams, got dict"):
        engine.generate("x", {"temperature": 0})  # type: ignore[arg-type]


def test_a_closed_stream_frees_its_pages(engine: Engine) -> None:
    stream = engine.stream("x", SamplingParams(max_tokens=150, ignore_eos=True))
    next(stream)
    assert any(group.in_use for group in engine.stats().groups)
    stream.close()  # type: ignore[attr-defined]
    settle(engine)


def test_closing_an_engine_fails_what_runs(toy_engine: Path) -> None:
    engine = Engine.load(toy_engine, kv_tokens=800, max_sequences=2)
    stream = engine.stream("x", SamplingParams(max_tokens=150, ignore_eos=True, n=30))
    next(stream)
    engine.close()
    with pytest.raises(OptionError, match="closed"):
        list(stream)
    with pytest.raises(OptionError, match="closed"):
        engine.generate("x", GREEDY)
    settle(engine)


def test_a_failing_kernel_library_ends_the_wait(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def fail(self: Runner, begun: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Runner, "finish", fail)
    with pytest.raises(RuntimeError, match="broken"):
        engine.generate(["a", "b"], GREEDY)
    monkeypatch.undo()
    settle(engine)
    assert engine.generate("a", GREEDY)


def test_many_threads_share_one_engine(engine: Engine) -> None:
    results: dict[int, Completion] = {}

    def work(i: int) -> None:
        results[i] = engine.generate([[i]], GREEDY)[0]
        engine.score([i, 1, 2])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: c.token_ids for i, c in results.items()} == {i: alone([i], 12) for i in range(8)}
    settle(engine)


def test_async_generation_shares_steps_and_never_blocks_the_loop(engine: Engine) -> None:
    async def tick(gaps: list[float]) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - before)

    async def run() -> tuple[list[list[Completion]], list[str], list[float]]:
        gaps: list[float] = []
        ticking = asyncio.create_task(tick(gaps))
        params = SamplingParams(temperature=0, max_tokens=12)
        done = await asyncio.gather(*(engine.agenerate([[i]], params) for i in range(9)))
        pieces = [chunk.text async for chunk in engine.astream([3], params)]
        ticking.cancel()
        return done, pieces, gaps

    done, pieces, gaps = asyncio.run(run())
    assert [c[0].token_ids for c in done] == [alone([i], 12) for i in range(9)]
    assert "".join(pieces) == done[3][0].text
    assert len(gaps) > 3 and sorted(gaps)[len(gaps) // 2] < 0.1
    settle(engine)


def test_a_cancelled_task_frees_its_pages(engine: Engine) -> None:
    async def run() -> None:
        task = asyncio.create_task(engine.agenerate([[1]] * 20, SamplingParams(max_tokens=150, ignore_eos=True)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    settle(engine)


def test_engines_without_a_tokenizer_speak_token_ids(toy_library: Path, tmp_path: Path) -> None:
    with Engine.load(write_toy(tmp_path / "e", toy_library, tokenizer_files={}), kv_tokens=64) as engine:
        (done,) = engine.generate([[1, 2]], GREEDY)
        assert done.text == "" and len(done.token_ids) == 12
        with pytest.raises(OptionError, match="stop strings need a tokenizer"):
            engine.generate([[1]], SamplingParams(stop=("a",)))


def test_several_prompts_stream_as_one_submission(engine: Engine) -> None:
    texts: dict[int, str] = {}
    for chunk in engine.stream([[1], [2, 3]], GREEDY):
        texts[chunk.prompt_index] = texts.get(chunk.prompt_index, "") + chunk.text
    assert texts == {done.prompt_index: done.text for done in engine.generate([[1], [2, 3]], GREEDY)}


def test_an_observer_that_raises_hangs_nobody(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    class Broken:
        kernel_times = False

        def __init__(self, of: str) -> None:
            self._of = of

        def step(self, record: object) -> None:
            if self._of == "step":
                raise RuntimeError("broken observer")

        def request(self, record: object) -> None:
            if self._of == "request":
                raise RuntimeError("broken observer")

    for of in ("step", "request"):
        engine.observe(Broken(of))
        try:
            assert engine.generate([[1]], SamplingParams(max_tokens=3, temperature=0))[0].token_ids == alone([1], 3)
        except RuntimeError as problem:
            assert str(problem) == "broken observer"
        assert engine.generate([[1]], GREEDY)[0].token_ids == alone([1], 12)
    settle(engine)


def test_samples_that_share_a_prompt_are_no_cache_hits(toy_engine: Path) -> None:
    with Engine.load(toy_engine, kv_tokens=800, scheduling=SchedulingOptions(prefix_cache=False)) as engine:
        done = engine.generate([list(range(80))], SamplingParams(n=6, max_tokens=3))
        stats = engine.stats()
        assert (stats.prompt_tokens, stats.cached_tokens) == (80, 0)
        assert [one.usage.cached_tokens for one in done] == [0, 79, 79, 79, 79, 79]


def test_a_deadline_may_be_as_far_as_one_likes(engine: Engine) -> None:
    far = RequestOptions(deadline=1e300)
    assert engine.generate([[1]], GREEDY, options=far)[0].token_ids == alone([1], 12)


def test_an_engine_does_not_outlive_a_fork(engine: Engine) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            engine.generate([[1]], GREEDY)
        except OptionError as problem:
            os.write(writer, str(problem).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"before the process was forked" in os.read(reader, 1000)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("kv_tokens", "longest"), [(64, 64), (100, 128), (6400, 200)])
def test_sequences_are_as_long_as_memory_allows(toy_engine: Path, kv_tokens: int, longest: int) -> None:
    with Engine.load(toy_engine, kv_tokens=kv_tokens) as engine:
        assert engine.longest == longest
        engine.generate([[1] * (longest - 1)], SamplingParams(max_tokens=1))


@pytest.mark.parametrize("prompt", [None, 5, b"abc", {"a": 1}, []])
def test_a_stream_of_what_is_no_prompt_is_refused(engine: Engine, prompt: Any) -> None:
    with pytest.raises(OptionError, match="prompt"):
        next(engine.stream(prompt, GREEDY))
