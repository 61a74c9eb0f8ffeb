"""The memory plan: values that live together never overlap, whatever the graph."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.compiler.memory import ALIGNMENT, Range, live_ranges, place, plan_memory
from xllmc.runtime.artifact.reader import read_plan

from tests.programs import program

ranges = st.lists(
    st.builds(
        lambda scale, size, first, length: (scale, size * ALIGNMENT, first, first + length),
        st.sampled_from(["T", "R", None]),
        st.integers(1, 9),
        st.integers(-1, 30),
        st.integers(0, 12),
    ),
    max_size=40,
).map(lambda items: [Range(f"v{i}", *item) for i, item in enumerate(items)])


@given(ranges, st.integers(0, 5))
def test_values_that_live_together_do_not_overlap(wanted, kept):
    buffers: dict = {}
    base = {"T": kept * ALIGNMENT}
    ends = place(wanted, base, buffers, "f")
    for i, a in enumerate(wanted):
        place_a = buffers[f"f:{a.name}"]
        assert place_a.bytes == a.bytes and place_a.offset % ALIGNMENT == 0
        assert base.get(a.scale, 0) <= place_a.offset and place_a.offset + a.bytes <= ends[a.scale or "fixed"]
        for b in wanted[:i]:
            place_b = buffers[f"f:{b.name}"]
            together = a.scale == b.scale and a.first <= b.last and b.first <= a.last
            apart = place_a.offset + a.bytes <= place_b.offset or place_b.offset + b.bytes <= place_a.offset
            assert apart or not together


def test_memory_is_used_again():
    chain = "\n".join(f"  %v{i}: f32[T, 16] = exp(%{'x' if i == 0 else f'v{i - 1}'})" for i in range(10))
    plan = plan_memory(program(f"func forward(%x: f32[T, 16]) -> (y) {{\n{chain}\n  return %v9\n}}"))
    assert plan.arenas == {"T": 3 * 64}  # the result, and two that alternate


def test_a_view_keeps_its_value_alive():
    text = """
    func forward(%x: f32[T, 16]) -> (y) {
      %a: f32[T, 16] = exp(%x)
      %v: f32[T, 4, 4] = reshape(%a, shape=[T, 4, 4])
      %b: f32[T, 16] = exp(%x)
      %c: f32[T, 16] = exp(%b)
      %d: f32[T, 4, 4] = exp(%v)
      return %c, %d
    }""".replace("-> (y)", "-> (c, d)")
    by_name = {r.name: r for r in live_ranges(program(text).forward)}
    assert by_name["a"].last > by_name["c"].first
    assert "v" not in by_name


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_a_models_arena_is_a_fraction_of_its_values(family, engine_dir):
    plan = read_plan(engine_dir(family, "bf16"))
    tokens = [b for b in plan.buffers if b.scale == "T"]
    assert plan.arenas["T"] < sum(b.bytes for b in tokens) / 2
