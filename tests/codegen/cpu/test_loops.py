"""Generated loops compute what their ops mean, for every op, shape and dtype, and a row's bits are its own."""

import pytest
import torch
from xllmc.compiler.check import relative_error
from xllmc.compiler.ir.interpret import run_function

from tests.lowering import Lowered
from tests.programs import program

UNARY = ("neg", "abs", "exp", "sigmoid", "tanh", "erf", "silu", "relu", "gelu_erf", "gelu_tanh", "sin", "cos")
POSITIVE = ("log", "sqrt", "rsqrt")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")

CHAINS = {
    **{op: [f"%{op}.0: f32[T, 19] = {op}(%x)"] for op in UNARY},
    **{op: [f"%{op}.p: f32[T, 19] = abs(%x)", f"%{op}.0: f32[T, 19] = {op}(%{op}.p)"] for op in POSITIVE},
    **{op: [f"%{op}.0: f32[T, 19] = {op}(%x, %z)"] for op in BINARY},
    "number": ["%number.0: f32[T, 19] = div(%x, -30.5)"],
    "cube": ["%cube.0: f32[T, 19] = pow(%x, exponent=3.0)"],
    "by_row": ["%by_row.0: f32[T, 19] = mul(%x, %r)"],
    "by_column": ["%by_column.0: f32[T, 19] = add(%x, @w)"],
    "by_head": ["%by_head.0: f32[T, 2, 19] = mul(%h, %rh)"],
    "centred": [
        "%centred.m: f32[T, 1] = mean(%x)",
        "%centred.d: f32[T, 19] = sub(%x, %centred.m)",
        "%centred.s: f32[T, 19] = pow(%centred.d, exponent=2.0)",
        "%centred.v: f32[T, 1] = sum(%centred.s)",
        "%centred.q: f32[T, 1] = sqrt(%centred.v)",
        "%centred.0: f32[T, 19] = div(%centred.d, %centred.q)",
    ],
    "softmax": [
        "%softmax.m: f32[T, 1] = amax(%x)",
        "%softmax.d: f32[T, 19] = sub(%x, %softmax.m)",
        "%softmax.e: f32[T, 19] = exp(%softmax.d)",
        "%softmax.s: f32[T, 1] = sum(%softmax.e)",
        "%softmax.0: f32[T, 19] = div(%softmax.e, %softmax.s)",
    ],
    "reduced": ["%reduced.0: f32[T, 1] = mean(%x)"],
    "half": ["%half.a: bf16[T, 19] = add(%b, 1.5)", "%half.0: bf16[T, 19] = mul(%half.a, %b)"],
    "narrowed": ["%narrowed.0: bf16[T, 19] = cast(%x, dtype=\"bf16\")"],
    "widened": ["%widened.0: f32[T, 19] = cast(%b, dtype=\"f32\")"],
    "positions": [
        "%positions.f: f32[T] = cast(%p, dtype=\"f32\")",
        "%positions.r: f32[T, 1] = reshape(%positions.f, shape=[T, 1])",
        "%positions.0: f32[T, 19] = mul(%x, %positions.r)",
    ],
    "sliced": ["%sliced.0: f32[T, 2, 7] = slice(%h, axis=2, start=5, stop=12)"],
    "sliced_heads": ["%sliced_heads.0: f32[T, 1, 19] = slice(%h, axis=1, start=1, stop=2)"],
    "joined": ["%joined.0: f32[T, 38] = concat(%x, %z, axis=1)"],
    "joined_heads": ["%joined_heads.0: f32[T, 4, 19] = concat(%h, %h, axis=1)"],
    "turned": ["%turned.0: f32[T, 19, 2] = permute(%h, axes=[0, 2, 1])"],
    "rows": ["%rows.0: f32[T, 2, 19] = take_rows(%h, %p)"],
}  # fmt: skip
EXACT = {"neg", "abs", "relu", "maximum", "minimum", "add", "sub", "mul", "narrowed", "widened", "half", "sliced"} | {
    "sliced_heads", "joined", "joined_heads", "turned", "rows", "by_row", "by_column", "by_head", "positions",
}  # fmt: skip
WEIGHT = torch.linspace(-2, 2, 19)
TOKENS = 37


@pytest.fixture(scope="module")
def lowered(tmp_path_factory) -> Lowered:
    body = "\n".join(f"  {line}" for lines in CHAINS.values() for line in lines)
    results, values = ", ".join(CHAINS), ", ".join(f"%{name}.0" for name in CHAINS)
    text = (
        "func forward(%x: f32[T, 19], %z: f32[T, 19], %r: f32[T, 1], %h: f32[T, 2, 19], %rh: f32[T, 1, 19], "
        f"%b: bf16[T, 19], %p: i32[T]) -> ({results}) {{\n{body}\n  return {values}\n}}"
    )
    return Lowered(program(text, ["w [19]"]), {"w": WEIGHT}, tmp_path_factory.mktemp("loops"))


def make_inputs(tokens: int = TOKENS) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"x": (19,), "z": (19,), "r": (1,), "h": (2, 19), "rh": (1, 19)}
    inputs = {name: 3 * torch.randn(TOKENS, *shape, generator=random) for name, shape in shapes.items()}
    inputs["b"] = inputs["x"].to(torch.bfloat16)
    inputs["p"] = torch.arange(TOKENS, dtype=torch.int32) % 5
    return {name: value[:tokens] for name, value in inputs.items()}


@pytest.fixture(scope="module")
def computed(lowered) -> dict[str, torch.Tensor]:
    return lowered(make_inputs(), TOKENS)


@pytest.fixture(scope="module")
def expected(lowered) -> dict[str, torch.Tensor]:
    return run_function(lowered.program.forward, make_inputs(), lambda name: WEIGHT)


@pytest.mark.parametrize("name", CHAINS)
def test_a_generated_kernel_computes_its_ops(name, computed, expected):
    assert relative_error(expected[name], computed[name]) <= (0.0 if name in EXACT else 1e-5)


def test_pointwise_chains_are_loops_and_nothing_is_left_alone(lowered):
    ops = {n.target.name for n in lowered.program.forward.calls}
    assert ops == {"loop", "slice", "concat", "permute", "take_rows", "reshape"}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 16, 36])
def test_a_row_does_not_depend_on_the_others(tokens, threads, lowered, computed):
    for name, value in lowered(make_inputs(tokens), tokens, threads).items():
        raw, whole = value.view(torch.uint8), computed[name][:tokens].view(torch.uint8)
        assert torch.equal(raw, whole), name
