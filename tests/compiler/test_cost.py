"""What ops say of their bytes and operations, and what the cost model makes of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.compiler.cost import DECODE, PREFILL, CostModel, call_work, node_work
from xllmc.compiler.ir.dims import Dim, Size, symbol
from xllmc.compiler.ir.polynomial import Polynomial
from xllmc.compiler.ir.types import PagedType, TensorType
from xllmc.compiler.ops import OPS
from xllmc.runtime.artifact.counts import evaluate
from xllmc.runtime.machine import generic_profile

from tests.programs import program

T, S, R, B = (symbol(name) for name in "TSRB")
STATE = PagedType(0, 2, 64, 32, "bf16")
X = TensorType("bf16", (T, 256))
Q = TensorType("bf16", (T, 8, 64))
STEP = (TensorType("i32", (S, B)), TensorType("i32", (symbol("S+1"),)), TensorType("i32", (1, T)))
SLOTS = TensorType("i32", (T,))
QKV = TensorType("bf16", (T, 8 * 64 + 2 * (64 + 32)))
VECTOR = TensorType("bf16", (256,))
HEAD = TensorType("bf16", (64,))

CALLS = {
    "linear": ((X, TensorType("bf16", (70, 256)), None), {"activation": "silu"}),
    "gated": ((X, TensorType("bf16", (2 * 48, 256)), None), {"activation": "silu", "gated": 40}),
    "rms_norm": ((X, VECTOR), {"eps": 1e-6}),
    "add_layer_norm": ((X, X, VECTOR, VECTOR), {"eps": 1e-6}),
    "embedding": ((TensorType("bf16", (1000, 256)), SLOTS), {}),
    "take_rows": ((X, TensorType("i32", (R,))), {}),
    "qkv_write": ((QKV, TensorType("f32", (T, 64)), HEAD, HEAD, STATE, SLOTS), {"heads": 8}),
    "paged_attention": ((Q, STATE, *STEP), {"scale": 1.0}),
    "windowed": ((Q, STATE, *STEP), {"scale": 1.0, "window": 128, "softcap": 2.0}),
    "mul": ((X, X), {}),
    "tanh": ((X,), {}),
    "cast": ((X,), {"dtype": "f32"}),
    "token_logprob": ((TensorType("f32", (R, 1000)), TensorType("i32", (R,))), {}),
}
NAMES = {"gated": "linear", "windowed": "paged_attention"}
COUNT = st.integers(1, 600)


def at(size: Size, sizes: dict[str, int]) -> int:
    if isinstance(size, int):
        return size
    value = size.factor
    for name in size.symbols:
        value *= sizes["S"] + 1 if name == "S+1" else sizes[name]
    return value


def fixed(operand, sizes: dict[str, int]):
    """The operand's type in one step, where no size follows a symbol any more."""
    if not isinstance(operand, TensorType):
        return operand
    return operand.with_shape(*(at(size, sizes) for size in operand.shape))


@pytest.mark.parametrize("name", CALLS)
@given(tokens=COUNT, sequences=COUNT, rows=COUNT, columns=COUNT, context=COUNT)
def test_work_is_the_cost_of_every_step(name, tokens, sequences, rows, columns, context):
    """Catches a polynomial that is right at one size only, and a size that went missing on the way to the plan."""
    op, (operands, attributes) = OPS[NAMES.get(name, name)], CALLS[name]
    sizes = {"T": tokens, "S": sequences, "R": rows, "B": columns, "C": context}
    work = call_work(op, operands, attributes)
    there = op.cost_model(*(fixed(o, sizes) for o in operands), **attributes)
    assert evaluate(work.write, sizes) == there.write.at(sizes)
    assert evaluate(work.flops, sizes) == there.flops.at(sizes)
    assert evaluate(work.tasks, sizes) == there.tasks.at(sizes)
    # A type without symbols counts as a weight, so that only the sum of what is read can agree.
    assert evaluate(work.read, sizes) + evaluate(work.streamed, sizes) == (there.read + there.streamed).at(sizes)


@given(
    st.lists(st.integers(-5, 5), min_size=3, max_size=3), st.lists(st.integers(-5, 5), min_size=3, max_size=3), COUNT
)
def test_polynomials_compute_as_numbers_do(a, b, tokens):
    def make(c: list[int]) -> Polynomial:
        return Polynomial.of(c[0]) + Polynomial.of(T) * c[1] + T * T * c[2]

    sizes = {"T": tokens}
    assert (make(a) + make(b)).at(sizes) == make(a).at(sizes) + make(b).at(sizes)
    assert (make(a) * make(b)).at(sizes) == make(a).at(sizes) * make(b).at(sizes)
    assert make(a) * make(b) == make(b) * make(a)


def test_query_starts_are_one_more_than_the_sequences():
    assert Polynomial.of(Dim(4, ("S+1",))).named() == {"S": 4, "1": 4}


def test_what_a_linear_reads_is_padded_as_it_is_packed():
    work = call_work(OPS["linear"], *CALLS["linear"])
    assert work.streamed == {"1": 96 * 256 * 2}
    assert work.tasks == {"1": 3}


def test_attention_follows_the_context_up_to_its_window():
    whole, windowed = (call_work(OPS["paged_attention"], *CALLS[n]) for n in ("paged_attention", "windowed"))
    near, far = ({"T": 1, "S": 1, "B": 8, "C": c} for c in (100, 1000))
    assert evaluate(whole.streamed, far) == 10 * evaluate(whole.streamed, near)
    assert evaluate(windowed.streamed, far) == 1.28 * evaluate(windowed.streamed, near)
    assert evaluate(windowed.streamed, far | {"C@128": 50}) == evaluate(windowed.streamed, near) / 2


def test_elementary_functions_cost_more_than_a_product():
    assert call_work(OPS["tanh"], (X,), {}).flops["T"] > 8 * call_work(OPS["mul"], (X, X), {}).flops["T"]


def test_a_view_costs_nothing_and_a_longer_step_more():
    model = CostModel(generic_profile())
    assert model.call_seconds(OPS["reshape"], (X,), {"shape": (T, 4, 64)}, PREFILL) == 0
    for name, (operands, attributes) in CALLS.items():
        op = OPS[NAMES.get(name, name)]
        times = [model.call_seconds(op, operands, attributes, DECODE | {"T": t, "R": t, "S": t}) for t in (2, 32, 512)]
        assert 0 < times[0] < times[1] < times[2], name


def test_weights_in_a_cache_are_read_faster_than_from_memory():
    profile = generic_profile()
    operands, attributes = (TensorType("bf16", (T, 1024)), TensorType("bf16", (4096, 1024)), None), {}
    small, large = (
        CostModel(profile, footprint).call_seconds(OPS["linear"], operands, attributes, DECODE)
        for footprint in (1e6, 1e9)
    )
    assert small < large


def test_an_embedding_stored_in_panels_reads_a_cache_line_for_each_pair():
    text = """
    func forward(%ids: i32[T], %x: f32[T, 16]) -> (hidden, logits) {
      %e: f32[T, 16] = embedding(@table, %ids)
      %y: f32[T, 64] = linear(%x, @table, none)
      return %e, %y
    }"""
    made = program(text, ["table [64, 16]"])
    node = made.forward.calls[0]
    assert node_work(node, made).streamed == {"T": 64}
    made.weights["table"] = replace(made.weights["table"], layout="panels")
    work = node_work(node, made)
    assert (work.op, work.streamed) == ("embedding.panels", {"T": 16 * 64})
    assert node_work(node) == node_work(made.copy().forward.calls[0])


def test_weights_of_a_program_are_the_footprint():
    text = "func forward(%x: f32[T, 16]) -> (y) {\n  %y: f32[T, 64] = linear(%x, @w, none)\n  return %y\n}"
    model = CostModel.even_handed(program(text, ["w [64, 16]"]))
    assert model.footprint == 64 * 16 * 4
