"""Whatever company a request is in, and however little memory there is, it gets what it would get alone."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.engine import Engine
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.requests import RequestOptions
from xllmc.runtime.sampling import SamplingParams

from tests.conftest import CompileEngine
from tests.runtime.scheduling.workload import Alone, Ask, Shape, Watch, asks, compare, load, perform, settle, shapes
from tests.runtime.toy import checkpoint

REAL = [("qwen3", "fp32"), ("gemma2", "bf16")]
MORE = [*REAL, ("qwen3", "bf16"), ("gemma2", "fp32")]
WORK = st.lists(asks(), min_size=1, max_size=8)
CHECKS = list(HealthCheck)


def run(path: Path, shape: Shape, work: list[Ask], alone: Alone) -> None:
    """One workload on one engine, and all that must hold of it."""
    with load(path, shape, work) as engine:
        watch = Watch(shape)
        engine.observe(watch)
        answers = perform(engine, work)
        settle(engine)
        engine.unobserve(watch)
        stats = engine.stats()
    for ask, answer in zip(work, answers, strict=True):
        compare(ask, answer, alone(ask))
    assert not watch.wrong
    submitted = [ask for ask in work if ask.leave_after != 0]
    assert stats.requests == len(watch.requests) == sum(ask.params.n for ask in submitted)
    assert stats.steps == len(watch.steps) and stats.computed_tokens >= sum(step.tokens for step in watch.steps)
    assert stats.output_tokens == sum(record.usage.output_tokens for record in watch.requests)
    assert stats.preemptions == sum(record.usage.preemptions for record in watch.requests)
    assert stats.cached_tokens <= stats.prompt_tokens
    plain = [a.leave_after is None and a.options.deadline is None and not a.params.stop for a in work]
    if all(plain) and all(record.outcome == "length" for record in watch.requests) and not stats.preemptions:
        further = sum(max(record.usage.output_tokens - 1, 0) for record in watch.requests)
        # Scores alone need no logits after a prompt's last token.
        spared = sum(
            a.params.prompt_logprobs is not None and not a.params.max_tokens and a.params.n == 1 and len(a.prompt) > 1
            for a in work
        )
        prompts = sum(record.usage.prompt_tokens - record.usage.cached_tokens for record in watch.requests)
        assert stats.computed_tokens == prompts + further - spared


@pytest.fixture(scope="module")
def toy_alone(toy_engine: Path) -> Iterator[Alone]:
    alone = Alone(toy_engine)
    yield alone
    alone.engine.close()


@settings(max_examples=50, suppress_health_check=CHECKS)
@given(shape=shapes(), work=WORK)
def test_company_changes_no_token(toy_engine: Path, toy_alone: Alone, shape: Shape, work: list[Ask]) -> None:
    run(toy_engine, shape, work, toy_alone)


@pytest.mark.slow
@settings(max_examples=3000, suppress_health_check=CHECKS)
@given(shape=shapes(), work=st.lists(asks(), min_size=1, max_size=20))
def test_much_company_changes_no_token(toy_engine: Path, toy_alone: Alone, shape: Shape, work: list[Ask]) -> None:
    run(toy_engine, shape, work, toy_alone)


@pytest.fixture(scope="module")
def real_alone(engine_dir: CompileEngine) -> Iterator[Callable[[tuple[str, str]], Alone]]:
    loaded: dict[tuple[str, str], Alone] = {}

    def get(which: tuple[str, str]) -> Alone:
        return loaded.setdefault(which, loaded.get(which) or Alone(engine_dir(*which)))

    yield get
    for one in loaded.values():
        one.engine.close()


@pytest.mark.parametrize("which", REAL)
@settings(max_examples=12, suppress_health_check=CHECKS)
@given(shape=shapes(), work=WORK)
def test_company_changes_no_bit_of_a_compiled_model(
    engine_dir: CompileEngine,
    real_alone: Callable[[tuple[str, str]], Alone],
    which: tuple[str, str],
    shape: Shape,
    work: list[Ask],
) -> None:
    run(engine_dir(*which), shape, work, real_alone(which))


@pytest.mark.slow
@pytest.mark.parametrize("which", MORE)
@settings(max_examples=250, suppress_health_check=CHECKS)
@given(shape=shapes(), work=st.lists(asks(), min_size=1, max_size=16))
def test_much_company_changes_no_bit_of_a_compiled_model(
    engine_dir: CompileEngine,
    real_alone: Callable[[tuple[str, str]], Alone],
    which: tuple[str, str],
    shape: Shape,
    work: list[Ask],
) -> None:
    run(engine_dir(*which), shape, work, real_alone(which))


@pytest.mark.parametrize("max_rows", [1, 2, 64])
def test_the_likeliest_tokens_of_a_prompt_survive_its_scores(engine_dir: CompileEngine, max_rows: int) -> None:
    """The scoring plan's results once lay where those of the sampling plan were."""
    prompt = [3 * i for i in range(31)]
    with Engine.load(engine_dir(*REAL[0]), threads=1, kv_tokens=512, max_rows=max_rows) as engine:
        params = SamplingParams(max_tokens=0, prompt_logprobs=3)
        (done,) = engine.generate([prompt], params)
        logits = engine.logits(prompt).astype(np.float64)
    assert done.prompt_logprobs is not None
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for row, target, found in zip(logprobs, prompt[1:], done.prompt_logprobs[1:], strict=False):
        assert found is not None and abs(found.model - row[target]) < 1e-5
        assert [token for token, _ in found.top] == np.argsort(-row, kind="stable")[:3].tolist()


@settings(max_examples=15, suppress_health_check=CHECKS)
@given(shape=shapes(), work=st.lists(asks(ends=False), min_size=2, max_size=6), after=st.sampled_from((0, 0.003, 0.02)))
def test_tokens_know_the_weights_that_gave_them(
    toy_engine: Path, toy_alone: Alone, shape: Shape, work: list[Ask], after: float
) -> None:
    """Versions only rise within a sample; who comes after the update finds nothing of what was computed before."""
    with load(toy_engine, shape, work) as engine, Engine.load(toy_engine, threads=1, kv_tokens=2048) as updated:
        updated.update_weights(checkpoint(1), 7)

        def update() -> None:
            time.sleep(after)
            assert engine.update_weights(checkpoint(1), 7) == 7
            late.extend(perform(engine, work))

        late: list[object] = []
        early = perform(engine, work, update)
        settle(engine)
        for ask, answer in zip(work, early, strict=True):
            for sample in range(ask.params.n):
                chunks = [chunk for chunk in answer.chunks if chunk.sample_index == sample]
                versions = [chunk.version for chunk in chunks]
                assert versions == sorted(versions) and set(versions) <= {0, 7}
                old = [chunk.token_id for chunk in chunks if chunk.version == 0 and chunk.token_id is not None]
                assert tuple(old) == toy_alone(ask)[sample].token_ids[: len(old)]
        alone = Alone(toy_engine)
        alone.engine.close()
        alone.engine = updated
        for ask, answer in zip(work, late, strict=True):
            compare(ask, answer, alone(ask))  # type: ignore[arg-type]
            assert all(chunk.version == 7 for chunk in answer.chunks)  # type: ignore[attr-defined]


def test_what_comes_as_an_idle_loop_gives_up_is_not_lost(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that came after the wait had timed out, but before the thread had the lock again, once hung."""
    engine.generate([[1]], SamplingParams(max_tokens=1))
    loop = engine._loop
    wait, submitted = loop._changed.wait, threading.Event()
    answers: list[object] = []

    def ask() -> None:
        submitted.set()
        answers.append(engine.generate([[2]], SamplingParams(max_tokens=2)))

    def late(timeout: float | None = None) -> bool:
        if timeout is None or timeout < 0.5 or submitted.is_set():
            return wait(timeout)
        thread = threading.Thread(target=ask, daemon=True)
        threads.append(thread)
        thread.start()
        # Lets the request in, and says all the same that nothing came.
        while not loop._commands:
            wait(0.001)
        return False

    threads: list[threading.Thread] = []
    monkeypatch.setattr(loop._changed, "wait", late)
    engine.generate([[1]], SamplingParams(max_tokens=1))
    assert submitted.wait(10)
    threads[0].join(10)
    assert len(answers) == 1
    settle(engine)


class Breaks:
    """An observer that must not raise, and does."""

    kernel_times = False

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.left = 2
        self.calls: list[threading.Thread] = []

    def step(self, record: object) -> None:
        self.left -= 1
        if not self.left:
            self.calls.append(threading.Thread(target=self.engine.reset_prefix_cache, daemon=True))
            self.calls[0].start()
            while not self.engine._loop._calls:
                time.sleep(0.001)
            raise RuntimeError("an observer's fault")

    def request(self, record: object) -> None:
        pass


def test_a_fault_in_the_loop_ends_every_wait_and_the_engine_goes_on(
    engine: Engine, toy_alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that were under way must be over before their pages are given away, and calls that wait must be heard."""
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    breaks = Breaks(engine)
    engine.observe(breaks)
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    with pytest.raises(RuntimeError, match="an observer's fault"):
        engine.generate([[1], [2]], params)
    breaks.calls[0].join(10)
    assert not breaks.calls[0].is_alive()
    engine.unobserve(breaks)  # type: ignore[arg-type]
    for token in range(5):
        assert engine.generate([[token]], params) == toy_alone(Ask((token,), params))
    settle(engine)


@pytest.mark.parametrize("when", [0.0, 0.001, 0.004])
def test_closing_under_load_ends_every_wait(toy_engine: Path, when: float) -> None:
    shape = Shape(SchedulingOptions(preemption="swap", swap_tokens=320), 24, 8, 3, 1)
    work = [Ask(tuple(range(i, i + 40)), SamplingParams(max_tokens=60, n=2), delay=0.001 * i) for i in range(6)]
    engine = load(toy_engine, shape, work)
    problems: list[BaseException] = []

    def ask_for(ask: Ask) -> None:
        try:
            list(engine.stream(ask.prompt, ask.params))
        except OptionError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=ask_for, args=(ask,), daemon=True) for ask in work]
    for thread in threads:
        thread.start()
    time.sleep(when)
    engine.close()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert all("closed" in str(problem) for problem in problems)
    stats = engine.stats()
    assert not stats.running and not stats.waiting and not any(group.in_use for group in stats.groups)


def test_a_leader_that_is_cancelled_takes_its_samples_along(engine: Engine) -> None:
    stream = engine.stream(list(range(90)), SamplingParams(n=20, max_tokens=30, ignore_eos=True))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    settle(engine)


def test_priority_goes_before_who_runs(toy_engine: Path) -> None:
    """Sequences that take a token each step were once safe from those of higher priority."""
    with Engine.load(toy_engine, threads=1, max_sequences=2, kv_tokens=800) as engine:
        streams = [engine.stream([i], SamplingParams(max_tokens=190, ignore_eos=True)) for i in range(2)]
        for stream in streams:
            next(stream)
        urgent = RequestOptions(priority=1)
        engine.generate([[9]], SamplingParams(max_tokens=3), options=urgent)
        assert engine.stats().preemptions == 1 and engine.stats().requests == 1
        assert [len(list(stream)) for stream in streams] == [189, 189]
