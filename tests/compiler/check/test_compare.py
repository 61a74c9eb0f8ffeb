"""What comparisons see: faults that only some inputs show, and differences that are none."""

import pytest
from torch import fx
from xllmc.compiler.check.samples import Step
from xllmc.compiler.ir.body import Body
from xllmc.compiler.ir.program import Weight
from xllmc.compiler.ir.text import print_body
from xllmc.compiler.ops import OPS
from xllmc.compiler.pipeline.run import PassError, run_pass
from xllmc.passes.api import Pass, Rewriter, graph_pass, type_of
from xllmc.passes.fuse_qkv_write import FuseQKVWrite
from xllmc.runtime.artifact.pages import PAGE_TOKENS
from xllmc.runtime.artifact.recipe import Recipe

from tests.programs import program

WINDOWED = """
func forward(%q: f32[T, 2, 8], %kv.0: paged<0>f32[1, 8, 8], %block_table.0: i32[S, B], %query_starts: i32[S+1],
             %positions: i32[T]) -> (out) {{
  %out: f32[T, 2, 8] = paged_attention(%q, %kv.0, %block_table.0, %query_starts, %positions,
      scale=0.3, softcap=0.0, window={window})
  return %out
}}"""


@pytest.mark.parametrize("window", [8, PAGE_TOKENS, 1000, 4096])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_window_one_position_off_is_seen_however_long_it_is(window, by):
    @graph_pass(stage="fused", numerics="reassociating")
    def shift(rewriter: Rewriter) -> None:
        """paged_attention(window=W)  ==>  paged_attention(window=W+1)"""
        for node in rewriter.calls("paged_attention"):
            attributes = {**node.kwargs, "window": node.kwargs["window"] + by}
            rewriter.replace({node: rewriter.at(node).emit("paged_attention", *node.args, **attributes)})
        rewriter.erase_dead()

    with pytest.raises(PassError, match="changed results"):
        run_pass(program(WINDOWED.format(window=window)), shift())


def test_a_baked_number_of_tokens_is_seen_inside_a_body_too():
    """The verifier does not look into bodies; of two steps, at most one has as many tokens."""

    @graph_pass(stage="fused")
    def bake(rewriter: Rewriter) -> None:
        """reshape(x, [T, 16])  ==>  loop(x) { reshape(x, [5, 16]) }"""
        (node,) = rewriter.calls("reshape")
        graph = fx.Graph()
        x = graph.placeholder("x")
        y = graph.create_node("call_function", OPS["reshape"], (x,), {"shape": (Step(0).sizes["T"], 16)})
        x.meta["type"], y.meta["type"] = type_of(node.args[0]), type_of(node)
        graph.output((y,))
        rewriter.replace({node: rewriter.at(node).emit("loop", node.args[0], body=Body(graph, print_body(graph)))})
        rewriter.erase_dead()

    text = """
    func forward(%x: f32[T, 2, 8]) -> (y) {
      %y: f32[T, 16] = reshape(%x, shape=[T, 16])
      return %y
    }"""
    with pytest.raises(PassError, match="cannot be run"):
        run_pass(program(text), bake())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("window", [0, 40, 4096])
def test_a_step_is_consistent(seed, window):
    step = Step(seed, window)
    table, starts, positions, slots = (
        step.inputs[name] for name in ("block_table", "query_starts", "positions", "slots")
    )
    assert {len(row) for row in table} == {step.sizes["B"]}
    assert starts[-1] == len(positions) == len(slots) == step.sizes["T"]
    assert len(set(slots)) == len(slots)
    pages = [page for row in table for page in row]
    assert max(pages) < step.pages
    for s in range(2):
        for t in range(starts[s], starts[s + 1]):
            assert slots[t] == table[s][positions[t] // PAGE_TOKENS] * PAGE_TOKENS + positions[t] % PAGE_TOKENS
    assert max(positions) >= window > max(positions) - 2 or window < PAGE_TOKENS
    assert not set(table[0][:1]) & set(table[1])


WIDE_HEADS = """
func forward(%y: bf16[T, 4096], %table: f32[T, 128], %kv.0: paged<0>bf16[8, 128, 128], %slots.0: i32[T],
             %block_table.0: i32[S, B], %query_starts: i32[S+1], %positions: i32[T]) -> (out) {
  %sq: bf16[T, 2048] = slice(%y, axis=1, start=0, stop=2048)
  %sk: bf16[T, 1024] = slice(%y, axis=1, start=2048, stop=3072)
  %sv: bf16[T, 1024] = slice(%y, axis=1, start=3072, stop=4096)
  %hq: bf16[T, 16, 128] = reshape(%sq, shape=[T, 16, 128])
  %hk: bf16[T, 8, 128] = reshape(%sk, shape=[T, 8, 128])
  %hv: bf16[T, 8, 128] = reshape(%sv, shape=[T, 8, 128])
  %nq: bf16[T, 16, 128] = rms_norm(%hq, @wq, eps=1e-06)
  %nk: bf16[T, 8, 128] = rms_norm(%hk, @wk, eps=1e-06)
  %rq: bf16[T, 16, 128] = rope(%nq, %table)
  %rk: bf16[T, 8, 128] = rope(%nk, %table)
  %w: paged<0>bf16[8, 128, 128] = kv_write(%kv.0, %rk, %hv, %slots.0)
  %out: bf16[T, 16, 128] = paged_attention(%rq, %w, %block_table.0, %query_starts, %positions,
      scale=0.0884, softcap=0.0, window=0)
  return %out
}"""


def test_attention_is_not_compared_where_it_hangs_on_a_last_bit():
    """Values of 1e-5 and 300 in one context: a rounded key moves what is left of 300 by a third of the rest."""
    _, report = run_pass(program(WIDE_HEADS, ["wq [128]", "wk [128]"], "bf16"), FuseQKVWrite())
    assert (report.matches, report.regions) == (1, 1)


def folding(narrow: bool) -> Pass:
    @graph_pass(stage="canonical", numerics="reassociating")
    def fold(rewriter: Rewriter) -> None:
        """add(cast(@w, f32), 1.0)  ==>  @w1"""
        (node,) = rewriter.calls("add")
        recipe = Recipe.of("to_dtype", rewriter.program.weights["w"].recipe, dtype="f32")
        recipe = Recipe.of("add_scalar", recipe, value=1.0)
        if narrow:
            recipe = Recipe.of("to_dtype", Recipe.of("to_dtype", recipe, dtype="bf16"), dtype="f32")
        folded: fx.Node = rewriter.weight("w1", Weight(node.meta["type"], recipe))
        rewriter.replace({node: folded})
        rewriter.erase_dead()

    return fold()


def test_a_rounding_is_seen_where_nothing_was_rounded_before():
    """What comes in is bf16, but all that is computed of it is float32."""
    text = """
    func forward(%x: f32[T, 16]) -> (y) {
      %c: f32[16] = cast(@w, dtype="f32")
      %a: f32[16] = add(%c, 1.0)
      %y: f32[T, 16] = mul(%x, %a)
      return %y
    }"""
    run_pass(program(text, ["w [16]"], "bf16"), folding(narrow=False))
    with pytest.raises(PassError, match="changed results"):
        run_pass(program(text, ["w [16]"], "bf16"), folding(narrow=True))


def test_a_result_of_several_can_be_replaced_by_another():
    """The call that both come from is then an input of the comparison, a tuple."""
    text = """
    func forward(%x: f32[T, 16], %r: f32[T, 16]) -> (y, z) {
      %n: (f32[T, 16], f32[T, 16]) = add_rms_norm(%x, %r, @w, eps=1e-06)
      %y: f32[T, 16] = get(%n, index=1)
      %z: f32[T, 16] = get(%n, index=INDEX)
      return %y, %z
    }"""

    @graph_pass(stage="canonical")
    def merge(rewriter: Rewriter) -> None:
        """get(n, 1), get(n, 1)  ==>  get(n, 1)"""
        first, second = rewriter.calls("get")
        rewriter.replace({second: first})
        rewriter.erase_dead()

    _, report = run_pass(program(text.replace("INDEX", "1"), ["w [16]"]), merge())
    assert report.regions == 1
    with pytest.raises(PassError, match="changed results"):
        run_pass(program(text.replace("INDEX", "0"), ["w [16]"]), merge())
