"""Predictions from a profile: how they follow sizes, caches and threads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.runtime.artifact.counts import evaluate
from xllmc.runtime.artifact.reader import read_plan
from xllmc.runtime.artifact.schema import Plan, Work
from xllmc.runtime.cli import run
from xllmc.runtime.cost import DECODE, PREFILL, StepCost, bandwidth, footprint_of, launch_seconds
from xllmc.runtime.machine import generic_profile

PROFILE = generic_profile()
LINEAR = Work(
    op="linear",
    dtype="bf16",
    streamed={"1": 1 << 22},
    read={"T": 2048},
    write={"T": 4096},
    flops={"T": 1 << 22},
    tasks={"1": 64},
)
SIZE = st.integers(1, 4096)


def test_windows_limit_the_context_unless_the_step_says_better():
    assert evaluate({"C@256": 2, "1": 3}, {"C": 100}) == 203
    assert evaluate({"C@256*T": 1}, {"C": 1000, "T": 2}) == 512
    assert evaluate({"C@256*T": 1}, {"C": 1000, "T": 2, "C@256": 10}) == 20


def test_a_step_may_say_what_a_product_of_its_sizes_is():
    assert evaluate({"C*S": 2, "C*T": 1, "S": 1}, {"C": 10, "S": 3, "T": 5, "C*S": 100}) == 253


@given(SIZE, SIZE)
def test_more_tokens_take_longer(one, other):
    few, many = sorted((one, other))
    times = [launch_seconds(LINEAR, PROFILE, {"T": tokens}) for tokens in (few, many)]
    assert 0 < times[0] <= times[1]


@given(st.floats(1e3, 1e11))
def test_bandwidth_stays_between_what_was_measured(working_set):
    rates = [p.per_second for p in PROFILE.ceilings.bandwidth]
    assert min(rates) * (1 - 1e-9) <= bandwidth(PROFILE.ceilings, working_set) <= max(rates) * (1 + 1e-9)


def test_a_kernel_that_was_not_calibrated_is_predicted_like_the_others():
    other = LINEAR.model_copy(update={"op": "made_up"})
    assert 0 < launch_seconds(other, PROFILE, {"T": 1}) < 1


def test_one_row_keeps_one_thread_busy():
    rows = Work(
        op="rms_norm", dtype="bf16", streamed={}, read={"T": 1 << 16}, write={"T": 1 << 16}, flops={}, tasks={"T": 1}
    )
    overhead = PROFILE.rates("rms_norm", "bf16").overhead
    one, two = (launch_seconds(rows, PROFILE, {"T": t}, threads=2) - overhead for t in (1, 2))
    assert one == pytest.approx(two)


def test_steps_of_an_engine(engine_dir):
    plan = read_plan(engine_dir("gemma2", "bf16"))
    assert all(launch.work is not None for function in plan.functions for launch in function.launches)
    decode, prefill = (StepCost(plan, PROFILE).seconds(sizes) for sizes in (DECODE, PREFILL))
    assert PROFILE.ceilings.step < decode < prefill
    longer = StepCost(plan, PROFILE).seconds(DECODE | {"C": 5000})
    assert longer >= decode


def launch_by_launch(plan: Plan, sizes: dict[str, float], threads: int | None) -> float:
    """Seconds of a step, as ``launch_seconds`` tells each launch."""
    total = PROFILE.ceilings.step
    for function in plan.functions:
        if function.name in ("forward", "sample"):
            works = [launch.work for launch in function.launches if launch.work]
            footprint = footprint_of(((work, 1) for work in works), sizes)
            total += sum(launch_seconds(work, PROFILE, sizes, footprint, threads) for work in works)
            total += PROFILE.ceilings.launch * (len(function.launches) - len(works))
    return total


@given(st.data())
def test_a_step_takes_what_its_launches_take(engine_dir, data):
    plan = read_plan(engine_dir("gemma2", "bf16"))
    without = data.draw(st.integers(0, 3))
    functions = [
        f.model_copy(update={"launches": (*(k.model_copy(update={"work": None}) for k in f.launches[:without]),
                                          *f.launches[without:])})
        for f in plan.functions
    ]  # fmt: skip
    plan = plan.model_copy(update={"functions": tuple(functions)})
    steps = data.draw(
        st.lists(
            st.fixed_dictionaries({"T": SIZE, "S": SIZE, "R": st.integers(0, 64), "B": SIZE, "C": st.floats(1, 4096)}),
            min_size=1,
            max_size=5,
        )
    )
    threads = data.draw(st.none() | st.integers(1, 8))
    cost = StepCost(plan, PROFILE)
    expected = [launch_by_launch(plan, sizes, threads) for sizes in steps]
    assert [cost.seconds(sizes, threads) for sizes in steps] == pytest.approx(expected, rel=1e-12)
    together = {symbol: np.array([sizes[symbol] for sizes in steps]) for symbol in steps[0]}
    assert cost.seconds_each(together, threads) == pytest.approx(expected, rel=1e-12)


def test_inspect_shows_predicted_beside_measured(engine_dir, capsys):
    assert run(["inspect", str(engine_dir("qwen3", "bf16")), "--cost", "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["threads"] == 1
    assert report["profile"].keys() == {"name", "note", "measured_here", "threads"}
    assert [step["name"] for step in report["steps"]] == ["decode", "prefill"]
    for step in report["steps"]:
        assert step["sizes"].keys() == {"T", "S", "R", "B", "C"}
        assert sum(kernel["measured"] for kernel in step["kernels"]) == pytest.approx(step["measured"])
        kinds = {kernel["kind"] for kernel in step["kernels"]}
        assert {"linear/bf16", "paged_attention/bf16", "sample/f32"} <= kinds
        for kernel in step["kernels"]:
            assert kernel["ratio"] == pytest.approx(kernel["predicted"] / kernel["measured"])
            assert kernel["launches"] > 0 and kernel["bytes"] > 0


def test_inspect_prints_a_table_for_each_step(engine_dir, capsys):
    assert run(["inspect", str(engine_dir("qwen3", "bf16")), "--cost"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("predicted us") == 2
    assert printed.count("median error") == 2


@pytest.mark.parametrize("options", [["--threads", "1"], ["--cost", "--check"]])
def test_inspect_refuses_options_that_do_not_go_together(engine_dir, capsys, options):
    assert run(["inspect", str(engine_dir("qwen3", "bf16")), *options]) == 2
    assert "--cost" in capsys.readouterr().err


def test_costs_are_told_without_torch(engine_dir, tmp_path: Path):
    program = (
        "import sys; from xllmc.runtime.cli import run\n"
        f"assert run(['inspect', {str(engine_dir('qwen3', 'bf16'))!r}, '--cost', '--json']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
