"""Chains of ops that generated loops compute, for every op, shape and dtype: each target's loops are held to them."""

import torch
from xllmc.compiler.ir.program import Program

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
    "by_head_half": [
        "%by_head_half.c: bf16[T, 1, 19] = cast(%rh, dtype=\"bf16\")",
        "%by_head_half.h: bf16[T, 2, 19] = cast(%h, dtype=\"bf16\")",
        "%by_head_half.0: bf16[T, 2, 19] = mul(%by_head_half.h, %by_head_half.c)",
    ],
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
    "later_positions": ["%later_positions.0: i32[T] = add(%p, 2)"],
    "rotated": [
        "%rotated.l: f32[T, 2, 9] = slice(%h, axis=2, start=0, stop=9)",
        "%rotated.h: f32[T, 2, 10] = slice(%h, axis=2, start=9, stop=19)",
        "%rotated.n: f32[T, 2, 10] = neg(%rotated.h)",
        "%rotated.c: f32[T, 2, 19] = concat(%rotated.n, %rotated.l, axis=2)",
        "%rotated.s: f32[T, 2, 19] = mul(%rotated.c, @w)",
        "%rotated.0: f32[T, 2, 19] = add(%rotated.s, %h)",
    ],
    "norm_of_parts": [
        "%norm_of_parts.c: f32[T, 39] = concat(%x, %r, %z, axis=1)",
        "%norm_of_parts.s: f32[T, 39] = mul(%norm_of_parts.c, %norm_of_parts.c)",
        "%norm_of_parts.m: f32[T, 1] = mean(%norm_of_parts.s)",
        "%norm_of_parts.a: f32[T, 1] = add(%norm_of_parts.m, 1e-06)",
        "%norm_of_parts.q: f32[T, 1] = rsqrt(%norm_of_parts.a)",
        "%norm_of_parts.0: f32[T, 39] = mul(%norm_of_parts.c, %norm_of_parts.q)",
    ],
    "largest_of_parts": [
        "%largest_of_parts.c: f32[T, 20] = concat(%r, %x, axis=1)",
        "%largest_of_parts.n: f32[T, 20] = neg(%largest_of_parts.c)",
        "%largest_of_parts.0: f32[T, 1] = amax(%largest_of_parts.n)",
    ],
    "one_element": [
        "%one_element.s: f32[T, 1] = slice(%x, axis=1, start=17, stop=18)",
        "%one_element.0: f32[T, 19] = sub(%x, %one_element.s)",
    ],
    "normed_twice": [
        "%normed_twice.n: bf16[T, 19] = rms_norm(%b, @w, eps=1e-06)",
        "%normed_twice.t: (bf16[T, 19], bf16[T, 19]) = add_layer_norm(%normed_twice.n, %b, @w, @w, eps=1e-05)",
        "%normed_twice.s: bf16[T, 19] = get(%normed_twice.t, index=0)",
        "%normed_twice.y: bf16[T, 19] = get(%normed_twice.t, index=1)",
        "%normed_twice.0: bf16[T, 19] = sub(%normed_twice.s, %normed_twice.y)",
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
    "later_positions", "rotated", "largest_of_parts", "one_element",
}  # fmt: skip
WEIGHT = torch.linspace(-2, 2, 19)
TOKENS = 37


def chain_program() -> Program:
    """One function that computes every chain."""
    body = "\n".join(f"  {line}" for lines in CHAINS.values() for line in lines)
    results, values = ", ".join(CHAINS), ", ".join(f"%{name}.0" for name in CHAINS)
    text = (
        "func forward(%x: f32[T, 19], %z: f32[T, 19], %r: f32[T, 1], %h: f32[T, 2, 19], %rh: f32[T, 1, 19], "
        f"%b: bf16[T, 19], %p: i32[T]) -> ({results}) {{\n{body}\n  return {values}\n}}"
    )
    return program(text, ["w [19]"])


def chain_inputs(tokens: int = TOKENS) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"x": (19,), "z": (19,), "r": (1,), "h": (2, 19), "rh": (1, 19)}
    inputs = {name: 3 * torch.randn(TOKENS, *shape, generator=random) for name, shape in shapes.items()}
    inputs["b"] = inputs["x"].to(torch.bfloat16)
    inputs["p"] = torch.arange(TOKENS, dtype=torch.int32) % 5
    return {name: value[:tokens] for name, value in inputs.items()}
