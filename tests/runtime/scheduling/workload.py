"""Requests that come from several threads at random moments, and what each of them would give alone."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st
from xllmc.runtime.artifact.errors import DeadlineError
from xllmc.runtime.engine import Engine
from xllmc.runtime.observe import RequestRecord, StepRecord
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.requests import Chunk, Completion, RequestOptions
from xllmc.runtime.sampling import SamplingParams
from xllmc.runtime.states.paged import pages_needed

TOKENS = 250
"""Ids below are in every tiny engine's vocabulary."""


@dataclass(frozen=True)
class Ask:
    """One request."""

    prompt: tuple[int, ...]
    params: SamplingParams
    options: RequestOptions = field(default_factory=RequestOptions)
    delay: float = 0.0
    """Seconds before it is submitted."""
    leave_after: int | None = None
    """Chunks after which its client goes away."""


@dataclass(frozen=True)
class Shape:
    """What an engine is loaded with."""

    scheduling: SchedulingOptions
    max_tokens: int
    max_rows: int
    max_sequences: int
    spare_pages: int
    """Beyond what the longest request needs."""


@dataclass
class Answer:
    """What one request got."""

    chunks: list[Chunk] = field(default_factory=list)
    problem: BaseException | None = None


@st.composite
def asks(draw: st.DrawFn, ends: bool = True) -> Ask:
    """``ends``: false for requests that go on to their last token."""
    base = draw(st.integers(0, 1))
    shared = draw(st.sampled_from((0, 1, 31, 32, 33, 63, 64, 65, 96)))
    own = draw(st.lists(st.integers(5, TOKENS - 1), min_size=0 if shared else 1, max_size=12))
    prompt = (*((7 * base + 3 * i) % TOKENS for i in range(shared)), *own)
    params = SamplingParams(
        temperature=draw(st.sampled_from((0, 0.8, 1.5))),
        top_p=draw(st.sampled_from((1.0, 0.9))),
        presence_penalty=draw(st.sampled_from((0, 0, 0.7))),
        repetition_penalty=draw(st.sampled_from((1, 1, 1.2))),
        seed=draw(st.integers(0, 3)),
        max_tokens=draw(st.sampled_from((0, 1, 2, 12, 34))),
        stop=draw(st.sampled_from(((), (), ("e",), ("zq", " t")))) if ends else (),
        ignore_eos=not ends or draw(st.booleans()),
        logprobs=draw(st.sampled_from((None, 0, 3))),
        prompt_logprobs=draw(st.sampled_from((None, None, None, 0, 2))),
        n=draw(st.sampled_from((1, 1, 1, 2, 5))),
    )
    options = RequestOptions(
        priority=draw(st.sampled_from((0, 0, 0, 1, -3))),
        key=draw(st.sampled_from(("", "a", "b"))),
        deadline=draw(st.sampled_from((None, None, None, None, 0.004))) if ends else None,
        cache_salt=draw(st.sampled_from(("", "", "", "other"))),
    )
    delay = draw(st.sampled_from((0, 0, 0.001, 0.005, 0.02)))
    leave = draw(st.sampled_from((None, None, None, None, 0, 1, 7))) if ends else None
    return Ask(prompt, params, options, delay, leave)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Small capacities, and pools in which hardly two requests fit."""
    preemption = draw(st.sampled_from(("recompute", "swap", "auto")))
    scheduling = SchedulingOptions(
        prefix_cache=draw(st.booleans()),
        ttft=draw(st.sampled_from((None, 0.01))),
        tpot=draw(st.sampled_from((None, 1e-4))),
        preemption=preemption,
        swap_tokens=0 if preemption == "recompute" else draw(st.sampled_from((64, 320))),
    )
    return Shape(
        scheduling,
        max_tokens=draw(st.sampled_from((5, 24, 64))),
        max_rows=draw(st.sampled_from((1, 3, 8))),
        max_sequences=draw(st.sampled_from((1, 3, 8))),
        spare_pages=draw(st.sampled_from((0, 0, 1, 3, 20))),
    )


class Watch:
    """Counts what the engine tells, and sees that no step was larger than it may be."""

    kernel_times = False

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.steps: list[StepRecord] = []
        self.requests: list[RequestRecord] = []
        self.wrong: list[str] = []

    def step(self, record: StepRecord) -> None:
        self.steps.append(record)
        shape = self.shape
        small = record.tokens <= shape.max_tokens and record.rows <= shape.max_rows
        if not small or record.sequences > shape.max_sequences or record.tokens != sum(record.sequence_tokens):
            self.wrong.append(repr(record))

    def request(self, record: RequestRecord) -> None:
        self.requests.append(record)


def load(path: object, shape: Shape, work: Sequence[Ask]) -> Engine:
    """An engine with just enough memory for the largest of the requests, and the spare pages."""
    longest = max(len(ask.prompt) + max(ask.params.max_tokens - 1, 0) for ask in work)
    engine = Engine.load(
        path,  # type: ignore[arg-type]
        threads=1,
        max_tokens=shape.max_tokens,
        max_rows=shape.max_rows,
        max_sequences=shape.max_sequences,
        kv_tokens=32 * (-(-longest // 32) + shape.spare_pages),
        scheduling=shape.scheduling,
    )
    for group, pages in zip(engine.manifest.groups, engine.stats().groups, strict=True):
        assert pages.total >= pages_needed(group, longest, shape.max_tokens) or pages.total >= -(-longest // 32)
    return engine


def perform(engine: Engine, work: Sequence[Ask], meanwhile: Callable[[], None] | None = None) -> list[Answer]:
    """Each request in a thread of its own."""
    answers = [Answer() for _ in work]

    def ask_for(ask: Ask, answer: Answer) -> None:
        time.sleep(ask.delay)
        stream = engine.stream(ask.prompt, ask.params, options=ask.options)
        try:
            if ask.leave_after == 0:
                return
            for chunk in stream:
                answer.chunks.append(chunk)
                if len(answer.chunks) == ask.leave_after:
                    break
        except DeadlineError as problem:
            answer.problem = problem
        finally:
            stream.close()  # type: ignore[attr-defined]

    threads = [threading.Thread(target=ask_for, args=pair, daemon=True) for pair in zip(work, answers, strict=True)]
    for thread in threads:
        thread.start()
    if meanwhile is not None:
        meanwhile()
    until = time.monotonic() + 60
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    assert not any(thread.is_alive() for thread in threads), f"requests never ended: {engine.stats()}"
    return answers


def settle(engine: Engine) -> None:
    """Wait until requests that were left are gone, and see that nothing stays."""
    until = time.monotonic() + 20
    while True:
        stats = engine.stats()
        busy = stats.running or stats.waiting or stats.waiting_tokens or stats.swapped_pages
        if not busy and not any(group.in_use for group in stats.groups):
            return
        assert time.monotonic() < until, stats
        time.sleep(0.001)


class Alone:
    """What requests give one by one, without a prefix cache, on an engine with room."""

    def __init__(self, path: object) -> None:
        options = SchedulingOptions(prefix_cache=False)
        self.engine = Engine.load(path, threads=1, kv_tokens=2048, scheduling=options)  # type: ignore[arg-type]
        self._known: dict[tuple[tuple[int, ...], str], list[Completion]] = {}

    def __call__(self, ask: Ask) -> list[Completion]:
        key = ask.prompt, repr(ask.params)
        if key not in self._known:
            self._known[key] = self.engine.generate([ask.prompt], ask.params)
        return self._known[key]


def compare(ask: Ask, answer: Answer, alone: list[Completion]) -> None:
    """Bit for bit: all of it, or as much as came before its client left or its deadline passed."""
    whole = answer.problem is None and ask.leave_after is None
    for expected in alone:
        chunks = [chunk for chunk in answer.chunks if chunk.sample_index == expected.sample_index]
        tokens = tuple(chunk.token_id for chunk in chunks if chunk.token_id is not None)
        text = "".join(chunk.text for chunk in chunks)
        assert tokens == expected.token_ids[: len(tokens)], (ask, expected.sample_index)
        assert expected.text.startswith(text)
        if expected.logprobs is not None:
            assert tuple(chunk.logprobs for chunk in chunks if chunk.logprobs) == expected.logprobs[: len(tokens)]
        if chunks:
            assert chunks[0].prompt_logprobs == expected.prompt_logprobs
            assert all(chunk.prompt_logprobs is None for chunk in chunks[1:])
            assert all(chunk.finish_reason is None for chunk in chunks[:-1])
        if whole:
            assert (tokens, text, chunks[-1].finish_reason) == (
                expected.token_ids,
                expected.text,
                expected.finish_reason,
            )
            usage = chunks[-1].usage
            assert usage is not None and usage.prompt_tokens == len(ask.prompt) and usage.output_tokens == len(tokens)
