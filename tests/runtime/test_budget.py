"""Token budgets: what targets allow, at least some progress, and predictions that learn from steps."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from xllmc.runtime.artifact.schema import FunctionPlan, Launch, Plan, Work
from xllmc.runtime.cost import StepCost
from xllmc.runtime.machine import generic_profile
from xllmc.runtime.plan import Capacities
from xllmc.runtime.scheduling.budget import CHUNK, Load, TokenBudget

CAPACITIES = Capacities(tokens=512, sequences=64, rows=64, table_columns=128)


def launch(op: str, streamed: dict, read: dict, flops: dict, tasks: dict) -> Launch:
    work = Work(op=op, dtype="bf16", streamed=streamed, read=read, write=read, flops=flops, tasks=tasks)
    return Launch(kernel=op, operands=(), origin=op, work=work)


LAYER = (
    launch("linear", {"1": 8 << 20}, {"T": 2048}, {"T": 8 << 20}, {"1": 128}),
    launch("paged_attention", {"C*S": 4096}, {"B*S": 4, "T": 4096}, {"C*T": 8416}, {"T": 8}),
    launch("paged_attention", {"C@128*S": 4096}, {"B*S": 4, "T": 4096}, {"C@128*T": 8416}, {"T": 8}),
)
HEAD = launch("linear", {"1": 1 << 24}, {"R": 2048}, {"R": 1 << 24}, {"1": 256})
PLAN = Plan(
    arenas={},
    buffers=(),
    functions=(FunctionPlan(name="forward", inputs=(), outputs={}, launches=(*LAYER * 4, HEAD)),),
)
COST = StepCost(PLAN, generic_profile())

LOADS = st.builds(
    Load,
    decoding=st.integers(0, 64),
    context=st.floats(1, 4096),
    prefill_tokens=st.integers(0, 5000),
    prefill_context=st.floats(0, 4096),
    oldest_left=st.integers(0, 4096),
    oldest_age=st.floats(0, 10),
)
TARGETS = st.floats(1e-4, 10)
MAYBE_TARGETS = st.none() | TARGETS
LOAD = Load(decoding=16, context=800, prefill_tokens=3000, prefill_context=0, oldest_left=900, oldest_age=0.01)


def budget(ttft: float | None = None, tpot: float | None = None, capacities: Capacities = CAPACITIES) -> TokenBudget:
    return TokenBudget(COST, capacities, ttft, tpot)


def limit_of(load: Load, capacities: Capacities = CAPACITIES) -> int:
    return max(0, min(capacities.tokens - load.decoding, load.prefill_tokens))


def by_hand(chooser: TokenBudget, load: Load, ttft: float | None, tpot: float) -> int:
    """The rule, one chunk after the other."""
    limit, ratios = limit_of(load), {}
    for chunk in (*range(CHUNK, limit, CHUNK), limit):
        step = chooser.seconds(load, chunk)
        ratios[chunk] = step / tpot
        if ttft is not None and load.oldest_left:
            whole = load.oldest_age + math.ceil(load.oldest_left / chunk) * step
            ratios[chunk] = max(ratios[chunk], whole / ttft)
    kept = [chunk for chunk, ratio in ratios.items() if ratio <= 1]
    return max(kept) if kept else min(ratios, key=lambda chunk: (ratios[chunk], -chunk))


@given(LOADS, MAYBE_TARGETS, MAYBE_TARGETS, st.sampled_from([1, 8, 32, 33, 100, 512, 5000]))
def test_budgets_fit_the_step_and_make_progress(load, ttft, tpot, most):
    capacities = replace(CAPACITIES, tokens=most)
    limit = limit_of(load, capacities)
    tokens = budget(ttft, tpot, capacities).tokens(load)
    assert min(CHUNK, limit) <= tokens <= limit
    assert tokens % CHUNK == 0 or tokens == limit


@given(LOADS, MAYBE_TARGETS)
def test_without_a_target_for_decoding_steps_are_full(load, ttft):
    assert budget(ttft, None).tokens(load) == limit_of(load)
    alone = replace(load, decoding=0)
    assert budget(ttft, 1e-4).tokens(alone) == limit_of(alone)


@given(LOADS, MAYBE_TARGETS, TARGETS)
def test_the_choice_is_the_largest_that_keeps_both_or_else_the_least_bad(load, ttft, tpot):
    assume(load.decoding and limit_of(load))
    chooser = budget(ttft, tpot)
    assert chooser.tokens(load) == by_hand(chooser, load, ttft, tpot)


@given(LOADS, MAYBE_TARGETS, TARGETS, TARGETS)
def test_patience_between_tokens_never_shrinks_a_budget(load, ttft, one, other):
    strict, patient = sorted((one, other))
    assert budget(ttft, strict).tokens(load) <= budget(ttft, patient).tokens(load)


@given(LOADS, TARGETS, TARGETS, TARGETS)
def test_patience_for_first_tokens_never_spoils_what_was_kept(load, tpot, one, other):
    hasty, patient = sorted((one, other))
    assume(load.decoding and limit_of(load))
    chooser = budget(hasty, tpot)
    tokens = chooser.tokens(load)
    seconds = chooser.seconds(load, tokens)
    steps = math.ceil(load.oldest_left / tokens)
    if seconds <= tpot and (not steps or load.oldest_age + steps * seconds <= hasty):
        assert budget(patient, tpot).tokens(load) >= tokens


def test_a_prompt_that_waited_long_gets_a_larger_share():
    chooser = budget(20 * budget().seconds(LOAD, 512), budget().seconds(LOAD, 100))
    waited = replace(LOAD, oldest_age=40 * budget().seconds(LOAD, 512))
    assert chooser.tokens(replace(waited, oldest_left=0)) == chooser.tokens(LOAD) == 96 < chooser.tokens(waited)


@given(LOADS, st.integers(0, 448))
def test_predictions_are_the_cost_models(load, prompt_tokens):
    """Rounded and interpolated predictions stay near those of the very sizes."""
    sequences = load.decoding + (prompt_tokens > 0)
    tokens = load.decoding + prompt_tokens
    assume(tokens)

    def attended(window: float) -> float:
        near = min(load.context, window)
        prompt = min(load.prefill_context + (prompt_tokens + 1) / 2, window)
        return (load.decoding * near + prompt_tokens * prompt) / tokens

    def read(window: float) -> float:
        prompt = min(load.prefill_context + prompt_tokens, window + prompt_tokens) if prompt_tokens else 0
        return load.decoding * min(load.context, window) + prompt

    sizes = {"T": tokens, "S": sequences, "R": sequences, "B": 1, "C": attended(math.inf), "C@128": attended(128)}
    expected = COST.seconds(sizes | {"C*S": read(math.inf), "C@128*S": read(128)})
    assert budget().seconds(load, prompt_tokens) == pytest.approx(expected, rel=0.15)


def test_one_long_prompt_does_not_hide_what_decoding_sequences_read():
    """Its queries lower the mean context; what decoding sequences stream stays."""
    chooser = budget()
    far = replace(LOAD, decoding=64, context=4000)
    times = [chooser.seconds(far, chunk) for chunk in range(0, 449, CHUNK)]
    assert times == sorted(times)


@given(st.floats(0.05, 20), st.lists(st.tuples(st.integers(0, 99), st.floats(1e-3, 1e3)), max_size=8))
def test_predictions_converge_to_what_steps_take_in_spite_of_outliers(truth, outliers):
    chooser = budget()
    raw = chooser.seconds(LOAD, 64)
    odd = dict(outliers)
    for step in range(200):
        chooser.observe(LOAD, 64, truth * raw * odd.get(step, 1.0))
    assert chooser.seconds(LOAD, 64) == pytest.approx(truth * raw, rel=0.1)


@pytest.mark.parametrize("factor", [1e-6, 1e6, math.inf, math.nan, 0.0])
def test_one_outlier_hardly_moves_what_was_learned(factor):
    chooser = budget()
    usual = chooser.seconds(LOAD, 64)
    for _ in range(40):
        chooser.observe(LOAD, 64, usual)
    chooser.observe(LOAD, 64, usual * factor)
    assert chooser.seconds(LOAD, 64) == pytest.approx(usual, rel=0.03)


def test_steps_slower_than_predicted_make_budgets_smaller():
    chooser = budget(None, 2 * budget().seconds(LOAD, 128))
    before = chooser.tokens(LOAD)
    for _ in range(60):
        chooser.observe(LOAD, 128, 3 * budget().seconds(LOAD, 128))
    assert chooser.tokens(LOAD) < before


def test_decoding_steps_tell_of_prompts_until_one_was_seen():
    chooser = budget()
    raw = {chunk: chooser.seconds(LOAD, chunk) for chunk in (0, 64)}
    for _ in range(60):
        chooser.observe(LOAD, 0, 2 * raw[0])
    assert chooser.seconds(LOAD, 64) == pytest.approx(2 * raw[64], rel=0.01)
    chooser.observe(LOAD, 64, 1.5 * raw[64])
    assert chooser.seconds(LOAD, 64) == pytest.approx(1.5 * raw[64])
    assert chooser.seconds(LOAD, 0) == pytest.approx(2 * raw[0], rel=0.01)


def test_computing_a_prompt_anew_takes_full_steps():
    chooser = budget()
    empty = Load(0, 0, 2000, 0, 0, 0)
    whole, part = (chooser.seconds(replace(empty, prefill_context=c), n) for c, n in ((0, 512), (512, 88)))
    assert chooser.recompute_seconds(600) == pytest.approx(whole + part, rel=0.02)
    assert chooser.recompute_seconds(0) == 0
    before = chooser.recompute_seconds(600)
    chooser.observe(empty, 512, 2 * whole)
    assert chooser.recompute_seconds(600) == pytest.approx(2 * before)


def test_a_plan_that_states_no_cost_still_gets_budgets():
    bare = tuple(launch.model_copy(update={"work": None}) for launch in PLAN.functions[0].launches)
    function = PLAN.functions[0].model_copy(update={"launches": bare})
    cost = StepCost(PLAN.model_copy(update={"functions": (function,)}), generic_profile())
    assert TokenBudget(cost, CAPACITIES, 1.0, 1.0).tokens(LOAD) == limit_of(LOAD)
    assert TokenBudget(cost, CAPACITIES, 1.0, 1e-9).tokens(LOAD) > 0
