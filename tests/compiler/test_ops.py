"""Every op says what it is, and its type rule agrees with its reference."""

import pytest
import torch
from xllmc.compiler.ir.op import Cost
from xllmc.compiler.ir.types import DTYPE_NAMES, PagedType, TensorType, TupleType
from xllmc.compiler.ops import OPS
from xllmc.compiler.ops.attention import PagedCache

T, S, HEADS, KV, D = 5, 2, 4, 2, 8


def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def cache() -> PagedCache:
    return PagedCache(x(128, KV, D), x(128, KV, D))


UNARY = (
    "neg",
    "abs",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "erf",
    "silu",
    "relu",
    "gelu_erf",
    "gelu_tanh",
)
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
STEP = (ints(0, 1, 2, 64, 65), torch.tensor([[0, 3], [1, 2]], dtype=torch.int32), ints(0, 3, 5), ints(0, 1, 2, 32, 33))

EXAMPLES: dict[str, tuple[tuple, dict]] = {
    **{name: ((x(T, 16).abs() + 0.1,), {}) for name in UNARY},
    **{name: ((x(T, 4, 16), x(T, 1, 16)), {}) for name in BINARY},
    "pow": ((x(T, 16),), {"exponent": 3.0}),
    "cast": ((x(T, 16),), {"dtype": "bf16"}),
    "mean": ((x(T, 16),), {}),
    "sum": ((x(T, 16),), {}),
    "amax": ((x(T, 16),), {}),
    "reshape": ((x(T, 16),), {"shape": (T, 4, 4)}),
    "permute": ((x(T, 4, 6),), {"axes": (0, 2, 1)}),
    "slice": ((x(T, 16),), {"axis": 1, "start": 4, "stop": 10}),
    "concat": ((x(T, 16), x(T, 3)), {"axis": 1}),
    "take_rows": ((x(T, 16), ints(3, 0)), {}),
    "get": (((x(T, 16), x(T, 2)),), {"index": 1}),
    "linear": ((x(T, 16), x(2 * 32, 16), None), {"activation": "silu", "gated": 24}),
    "embedding": ((x(11, 16), ints(3, 0, 10)), {}),
    "rms_norm": ((x(T, 16, dtype=torch.bfloat16), x(16)), {"eps": 1e-6}),
    "layer_norm": ((x(T, 16), x(16), x(16)), {"eps": 1e-6}),
    "add_rms_norm": ((x(T, 16), x(T, 16), x(16)), {"eps": 1e-6}),
    "add_layer_norm": ((x(T, 16), x(T, 16), x(16), x(16)), {"eps": 1e-6}),
    "rope_table": ((ints(0, 1, 7), x(4)), {"scale": 1.5}),
    "rope": ((x(T, HEADS, D), x(T, 6)), {}),
    "kv_write": ((cache(), x(T, KV, D), x(T, KV, D), STEP[0]), {}),
    "paged_attention": ((x(T, HEADS, D), cache(), *STEP[1:]), {"scale": 0.3, "window": 3, "softcap": 5.0}),
    "qkv_write": ((x(T, (HEADS + 2 * KV) * D), x(T, D), x(D), x(D), cache(), STEP[0]), {"heads": HEADS, "eps": 1e-6}),
    "token_logprob": ((x(T, 16), ints(1, 2, 3, 4, 5)), {}),
}
WITHOUT_REFERENCE = {"sample": "defined and tested by its kernel", "loop": "its meaning is its body's"}


def type_of(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return TensorType(DTYPE_NAMES[value.dtype], tuple(value.shape))
    if isinstance(value, PagedCache):
        return PagedType(0, value.keys.shape[1], value.keys.shape[2], value.values.shape[2], "f32")
    if isinstance(value, tuple):
        return TupleType(tuple(map(type_of, value)))
    return value


def test_every_op_has_an_example():
    assert set(EXAMPLES) | set(WITHOUT_REFERENCE) == set(OPS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_type_rule_agrees_with_the_reference(name):
    operands, attributes = EXAMPLES[name]
    inferred = OPS[name].result_type(*map(type_of, operands), **attributes)
    assert inferred == type_of(OPS[name](*operands, **attributes))


@pytest.mark.parametrize("name", OPS)
def test_every_op_documents_itself_and_states_tolerance_and_cost(name):
    op = OPS[name]
    assert op.doc.strip() and op.tolerance and op.infer and op.cost_model


@pytest.mark.parametrize("name", EXAMPLES)
def test_costs_are_counts(name):
    operands, attributes = EXAMPLES[name]
    cost = OPS[name].cost_model(*map(type_of, operands), **attributes)
    assert isinstance(cost, Cost)
    for amount in (cost.streamed, cost.read, cost.write, cost.flops, cost.tasks):
        assert amount.at({"C": 7, "C@3": 3}) >= 0


@pytest.mark.parametrize(
    ("name", "operands", "attributes", "reason"),
    [
        ("add", (x(4, 3), x(4, 2)), {}, "do not broadcast"),
        ("add", (x(4, 3), x(4, 3, dtype=torch.bfloat16)), {}, "share a dtype"),
        ("linear", (x(4, 3), x(8, 4), None), {}, r"x \[..., K\] and weight \[N, K\]"),
        ("linear", (x(4, 3), x(8, 3), None), {"activation": "swish"}, "knows activations"),
        ("slice", (x(4, 3),), {"axis": 1, "start": 2, "stop": 4}, "leaves axis 1"),
        ("reshape", (x(4, 3),), {"shape": (5, 3)}, "as many elements"),
        ("paged_attention", (x(T, 3, D), cache(), *STEP[1:]), {"scale": 1.0}, "multiple of num_kv_heads, got 3 and 2"),
        ("paged_attention", (x(T, 4, D), cache(), *STEP[1:], ints(1, 3, 5)), {"scale": 1.0}, r"ancestors i32\[5, W\]"),
    ],
)
def test_types_that_do_not_fit_are_refused_with_a_reason(name, operands, attributes, reason):
    with pytest.raises(TypeError, match=reason):
        OPS[name].result_type(*map(type_of, operands), **attributes)


def test_attention_is_softmax_over_the_window():
    """One query over contiguous pages, against the formula written out."""
    state, q = cache(), x(1, KV, D)
    table, starts, position = torch.tensor([[0, 1]], dtype=torch.int32), ints(0, 1), ints(40)
    got = OPS["paged_attention"](q, state, table, starts, position, scale=0.5, window=10, softcap=0.0)
    for head in range(KV):
        weights = (state.keys[31:41, head] @ q[0, head] * 0.5).softmax(-1)
        torch.testing.assert_close(got[0, head], weights @ state.values[31:41, head])


def tree_step(position: list[int], words: list[list[int]], window: int = 0) -> torch.Tensor:
    """Attention of one sequence's tokens, over pages 0 and 1."""
    q, table = x(len(position), HEADS, D), torch.tensor([[0, 1]], dtype=torch.int32)
    starts, bits = ints(0, len(position)), torch.tensor(words, dtype=torch.int32)
    return OPS["paged_attention"](q, cache(), table, starts, ints(*position), bits, scale=0.5, window=window)


@pytest.mark.parametrize("window", [0, 3, 100])
def test_a_tree_without_branches_is_a_sequence(window):
    """Bit 31 and bits of a second word among them; the words hide what the window would."""
    count = 34
    position = list(range(20, 20 + count))
    rows = [sum(1 << j for j in range(t + 1) if not window or j > t - window) for t in range(count)]
    words = [[(row & 0xFFFFFFFF) - (1 << 32) * (row >> 31 & 1), row >> 32] for row in rows]
    q, table = x(count, HEADS, D), torch.tensor([[0, 1]], dtype=torch.int32)
    expected = OPS["paged_attention"](q, cache(), table, ints(0, count), ints(*position), scale=0.5, window=window)
    torch.testing.assert_close(tree_step(position, words, window), expected)


def test_siblings_see_their_parents_and_not_each_other():
    """Nodes 1 and 2 are children of node 0, and node 3 is a child of node 2; they are stored at 36, 37, 38 and 39."""
    got = tree_step([36, 37, 37, 38], [[0b1], [0b11], [0b101], [0b1101]])
    state, q = cache(), x(4, HEADS, D)
    for token, nodes in enumerate([[36], [36, 37], [36, 38], [36, 38, 39]]):
        places = [*range(36), *nodes]
        for head in range(HEADS):
            weights = (state.keys[places, head // 2] @ q[token, head] * 0.5).softmax(-1)
            torch.testing.assert_close(got[token, head], weights @ state.values[places, head // 2])
