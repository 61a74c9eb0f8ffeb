"""Fusions: what each makes of a small graph, and what keeps it from fusing."""

from xllmc.compiler.pipeline.run import run_pass
from xllmc.passes.fold_weights import FoldWeights
from xllmc.passes.fuse_activation import FuseActivation
from xllmc.passes.fuse_add_layer_norm import FuseAddLayerNorm
from xllmc.passes.fuse_add_rms_norm import FuseAddRMSNorm
from xllmc.passes.fuse_gated_linear import FuseGatedLinear
from xllmc.passes.fuse_linears import FuseLinears
from xllmc.passes.fuse_qkv_write import FuseQKVWrite
from xllmc.passes.group_loops import GroupLoops
from xllmc.passes.pack_weights import PackWeights
from xllmc.passes.select_rows import SelectRows
from xllmc.passes.widen_logits import WidenLogits

from tests.programs import after, program

GATED = """
func forward(%x: f32[T, 16]) -> (y) {{
  %g: f32[T, 24] = linear(%x, @mlp.gate_proj.weight, {bias})
  %u: f32[T, 24] = linear(%x, @mlp.up_proj.weight, none)
  %s: f32[T, 24] = silu(%g)
  %y: f32[T, 24] = mul(%s, %u)
  return %y
}}"""
GATED_WEIGHTS = ["mlp.gate_proj.weight [24, 16]", "mlp.up_proj.weight [24, 16]", "bias [24]"]


def test_a_gated_mlp():
    lines, _ = after(FuseGatedLinear(), program(GATED.format(bias="none"), GATED_WEIGHTS))
    assert lines == [
        '%linear: f32[T, 24] = linear(%x, @mlp.gate_up.weight, none, activation="silu", gated=24)',
        "return %linear",
    ]


def test_a_gated_mlp_with_a_bias_is_a_near_miss():
    _, report = after(FuseGatedLinear(), program(GATED.format(bias="@bias"), GATED_WEIGHTS))
    assert report.matches == 0
    assert report.near_misses == ("y: @bias is not none",)


def test_projections_of_one_input():
    text = """
    func forward(%x: f32[T, 16]) -> (q, k) {
      %q: f32[T, 24] = linear(%x, @attn.q_proj.weight, @attn.q_proj.bias)
      %k: f32[T, 8] = linear(%x, @attn.k_proj.weight, @attn.k_proj.bias)
      return %q, %k
    }"""
    weights = [
        "attn.q_proj.weight [24, 16]",
        "attn.k_proj.weight [8, 16]",
        "attn.q_proj.bias [24]",
        "attn.k_proj.bias [8]",
    ]
    lines, _ = after(FuseLinears(), program(text, weights))
    assert lines == [
        "%linear: f32[T, 32] = linear(%x, @attn.q_k.weight, @attn.q_k.bias)",
        "%slice_1: f32[T, 24] = slice(%linear, axis=1, start=0, stop=24)",
        "%slice_2: f32[T, 8] = slice(%linear, axis=1, start=24, stop=32)",
        "return %slice_1, %slice_2",
    ]


def test_an_activation_becomes_an_epilogue_unless_the_linear_is_read_elsewhere():
    text = """
    func forward(%x: f32[T, 16]) -> (y, z) {{
      %a: f32[T, 8] = linear(%x, @w, none)
      %y: f32[T, 8] = relu(%a)
      return %y, {other}
    }}"""
    lines, _ = after(FuseActivation(), program(text.format(other="%x"), ["w [8, 16]"]))
    assert lines[0] == '%linear: f32[T, 8] = linear(%x, @w, none, activation="relu")'
    _, report = after(FuseActivation(), program(text.format(other="%a"), ["w [8, 16]"]))
    assert report.matches == 0 and "read elsewhere" in report.near_misses[0]


def test_an_addition_and_its_norm():
    text = """
    func forward(%x: f32[T, 16], %r: f32[T, 16]) -> (s, y) {
      %s: f32[T, 16] = add(%x, %r)
      %y: f32[T, 16] = rms_norm(%s, @w, eps=1e-05)
      return %s, %y
    }"""
    assert after(FuseAddRMSNorm(), program(text, ["w [16]"]))[0] == [
        "%add_rms_norm: (f32[T, 16], f32[T, 16]) = add_rms_norm(%x, %r, @w, eps=1e-05)",
        "%get: f32[T, 16] = get(%add_rms_norm, index=0)",
        "%get_1: f32[T, 16] = get(%add_rms_norm, index=1)",
        "return %get, %get_1",
    ]


def test_an_addition_and_its_layer_norm():
    text = """
    func forward(%x: f32[T, 16], %r: f32[T, 16]) -> (y) {
      %s: f32[T, 16] = add(%x, %r)
      %y: f32[T, 16] = layer_norm(%s, @w, @b, eps=1e-05)
      return %y
    }"""
    assert after(FuseAddLayerNorm(), program(text, ["w [16]", "b [16]"]))[0] == [
        "%add_layer_norm: (f32[T, 16], f32[T, 16]) = add_layer_norm(%x, %r, @w, @b, eps=1e-05)",
        "%get_1: f32[T, 16] = get(%add_layer_norm, index=1)",
        "return %get_1",
    ]


QKV = """
func forward(%y: f32[T, 32], %table: f32[T, 8], %kv.0: paged<0>f32[1, 8, 8], %slots.0: i32[T],
             %block_table.0: i32[S, B], %query_starts: i32[S+1], %positions: i32[T]) -> (out) {{
  %sq: f32[T, 16] = slice(%y, axis=1, start=0, stop=16)
  %sk: f32[T, 8] = slice(%y, axis=1, start={k}, stop={k8})
  %sv: f32[T, 8] = slice(%y, axis=1, start=24, stop=32)
  %hq: f32[T, 2, 8] = reshape(%sq, shape=[T, 2, 8])
  %hk: f32[T, 1, 8] = reshape(%sk, shape=[T, 1, 8])
  %hv: f32[T, 1, 8] = reshape(%sv, shape=[T, 1, 8])
  %nq: f32[T, 2, 8] = rms_norm(%hq, @wq, eps=1e-06)
  %nk: f32[T, 1, 8] = rms_norm(%hk, @wk, eps=1e-06)
  %rq: f32[T, 2, 8] = rope(%nq, %table)
  %rk: f32[T, 1, 8] = rope(%nk, %table)
  %w: paged<0>f32[1, 8, 8] = kv_write(%kv.0, %rk, %hv, %slots.0)
  %out: f32[T, 2, 8] = paged_attention(%rq, %w, %block_table.0, %query_starts, %positions,
      scale=0.5, softcap=0.0, window=0)
  return %out
}}"""


def test_all_between_projection_and_attention():
    lines, _ = after(FuseQKVWrite(), program(QKV.format(k=16, k8=24), ["wq [8]", "wk [8]"]))
    assert lines[:3] == [
        "%qkv_write: (f32[T, 2, 8], paged<0>f32[1, 8, 8]) = qkv_write(%y, %table, @wq, @wk, %kv.0, %slots.0, "
        "eps=1e-06, heads=2)",
        "%get_1: f32[T, 2, 8] = get(%qkv_write, index=0)",
        "%get_2: paged<0>f32[1, 8, 8] = get(%qkv_write, index=1)",
    ]
    assert len(lines) == 5


def test_a_projection_in_another_order_is_a_near_miss():
    _, report = after(FuseQKVWrite(), program(QKV.format(k=0, k8=8), ["wq [8]", "wk [8]"]))
    assert report.matches == 0
    assert report.near_misses == ("out: queries is 16 in one place and 0 in another",)


def test_rows_are_selected_before_the_norm_and_the_output_head():
    text = """
    func forward(%x: f32[T, 16], %r: f32[T, 16], %logit_rows: i32[R]) -> (logits) {
      %s: f32[T, 16] = add(%x, %r)
      %n: f32[T, 16] = rms_norm(%s, @w, eps=1e-06)
      %l: f32[T, 64] = linear(%n, @head, none)
      %y: f32[R, 64] = take_rows(%l, %logit_rows)
      return %y
    }"""
    lines, report = after(SelectRows(), program(text, ["w [16]", "head [64, 16]"]))
    assert [line.split(" = ")[-1].split("(")[0] for line in lines[:-1]] == [
        "take_rows", "take_rows", "add", "rms_norm", "linear",
    ]  # fmt: skip
    assert report.matches == 3


def test_logits_and_their_cap_are_float32():
    text = """
    func forward(%x: bf16[R, 16]) -> (logits) {
      %l: bf16[R, 64] = linear(%x, @head, none)
      %d: bf16[R, 64] = div(%l, 30.0)
      %t: bf16[R, 64] = tanh(%d)
      %y: bf16[R, 64] = mul(%t, 30.0)
      return %y
    }"""
    lines, _ = after(WidenLogits(), program(text, ["head [64, 16]"], "bf16"))
    assert lines[0] == '%linear: f32[R, 64] = linear(%x, @head, none, out_dtype="f32")'
    assert all(": f32[R, 64]" in line for line in lines[:-1])


def test_what_no_kernel_claims_becomes_one_loop():
    text = """
    func forward(%x: bf16[T, 16]) -> (y) {
      %d: bf16[T, 16] = div(%x, 30.0)
      %m: bf16[T, 1] = amax(%d)
      %y: bf16[T, 16] = sub(%d, %m)
      return %y
    }"""
    lines, _ = after(GroupLoops(), program(text))
    assert len(lines) == 2
    assert lines[0].startswith("%loop: bf16[T, 16] = loop(%x, body=(%0: bf16[T, 16]) {")
    assert all(word in lines[0] for word in ("div", "amax", "sub", 'dtype="bf16"'))


def test_arithmetic_on_weights_moves_into_recipes():
    text = """
    func forward(%x: f32[T, 16]) -> (y) {
      %w1: f32[16] = add(@w, 1.0)
      %t: f32[16, 8] = permute(@m, axes=[1, 0])
      %n: f32[T, 16] = rms_norm(%x, %w1, eps=1e-06)
      %y: f32[T, 8] = linear(%n, @k, none)
      %z: f32[T, 16] = linear(%y, %t, none)
      return %z
    }"""
    before = program(text, ["w [16]", "m [8, 16]", "k [8, 16]"])
    lines, report = after(FoldWeights(), before)
    assert report.matches == 2
    assert any("@m.permute" in line for line in lines) and any("@w.add" in line for line in lines)


def test_what_no_recipe_can_compute_is_a_near_miss():
    text = "func forward(%x: f32[T, 16]) -> (y) {\n %e: f32[16] = exp(@w)\n %y: f32[T, 16] = mul(%x, %e)\n return %y\n}"
    _, report = after(FoldWeights(), program(text, ["w [16]"]))
    assert report.matches == 0
    assert report.near_misses == ("e: no recipe operation for exp of a weight",)


def test_matrices_go_into_panels():
    text = """
    func forward(%ids: i32[T]) -> (y) {
      %e: f32[T, 16] = embedding(@tied, %ids)
      %y: f32[T, 64] = linear(%e, @tied, none)
      return %y
    }"""
    changed, _ = run_pass(program(text, ["tied [64, 16]"]), PackWeights())
    assert changed.weights["tied"].layout == "panels"
    assert changed.weights["tied"].stored.op == "pack_panels"


def test_narrow_arithmetic_on_weights_is_folded_bit_for_bit():
    """As it rounds in bfloat16, so it is stored: the float32 sum is another number, and not the model's."""
    text = """
    func forward(%x: bf16[T, 16]) -> (y) {
      %a: bf16[16] = add(@w, 1.0)
      %y: bf16[T, 16] = layer_norm(%x, %a, @w, eps=1e-05)
      return %y
    }"""
    lines, report = after(FoldWeights(), program(text, ["w [16]"], "bf16"))
    assert report.matches == 1 and "@w.add" in lines[0]
