"""Epilogues compute what their bodies mean, change no bit with the batch or the threads, and round once."""

import pytest
import torch
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.ir.interpret import run_function

from tests.lowering import Lowered
from tests.programs import program

TOKENS = 37
DTYPES = ("f32", "bf16")

CHAINS = {
    "residual": """
      %residual.l: {d}[T, 41] = linear(%x, @w, none)
      %residual.m: {d}[T, 41] = mul(%residual.l, 0.22)
      %residual: {d}[T, 41] = add(%r, %residual.m)""",
    "softcap": """
      %softcap.l: f32[T, 41] = linear(%x, @w, @v, out_dtype="f32")
      %softcap.d: f32[T, 41] = div(%softcap.l, 2.5)
      %softcap.t: f32[T, 41] = tanh(%softcap.d)
      %softcap: f32[T, 41] = mul(%softcap.t, 2.5)""",
    "operands": """
      %operands.l: {d}[T, 41] = linear(%x, @w, @v, activation="silu")
      %operands.a: {d}[T, 41] = mul(%operands.l, @v)
      %operands.b: {d}[T, 41] = add(%operands.a, %s)
      %operands: {d}[T, 41] = maximum(%operands.b, %r)""",
    "gated": """
      %gated.l: {d}[T, 40] = linear(%x, @gu, none, activation="gelu_tanh", gated=40)
      %gated.s: {d}[T, 40] = mul(%gated.l, %s)
      %gated: {d}[T, 40] = sub(%gated.s, %q)""",
    "embedded": """
      %embedded.e: {d}[T, 33] = embedding(@table, %ids)
      %embedded.m: {d}[T, 33] = mul(%embedded.e, 5.5)
      %embedded: {d}[T, 33] = add(%embedded.m, %x)""",
    "tied": """
      %tied.l: {d}[T, 41] = linear(%x, @w, none)
      %tied.e: {d}[T, 33] = embedding(@w, %ids)
      %tied: {d}[T, 33] = mul(%tied.e, %s)""",
}
WEIGHTS = ("w [41, 33]", "v [41]", "gu [96, 33]", "table [50, 33]")
SHAPES = {"x": (33,), "r": (41,), "q": (40,), "s": (1,)}


def panels(value: torch.Tensor) -> torch.Tensor:
    from xllmc.runtime.artifact.recipe import Tensor, pack_panels

    half = value.dtype == torch.bfloat16
    carrier = value.view(torch.uint16).numpy() if half else value.numpy()
    packed = torch.from_numpy(pack_panels(Tensor(carrier, "bf16" if half else "f32")).values)
    return packed.view(torch.bfloat16) if half else packed


@pytest.fixture(scope="module", params=DTYPES)
def case(request, tmp_path_factory):
    """What is lowered, its weights as they are meant, and inputs."""
    dtype = request.param
    inputs = ", ".join(f"%{n}: {dtype}[T, {s[0]}]" for n, s in SHAPES.items())
    body = "".join(chain.format(d=dtype) for chain in CHAINS.values())
    names, values = ", ".join([*CHAINS, "product"]), ", ".join([*(f"%{n}" for n in CHAINS), "%tied.l"])
    text = f"func forward({inputs}, %ids: i32[T]) -> ({names}) {{{body}\n return {values} }}"
    random = torch.Generator().manual_seed(1)
    torch_dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    weights = {
        name: (torch.randn(*map(int, sizes.strip("[]").split(",")), generator=random) * 0.5).to(torch_dtype)
        for name, sizes in (w.split(" ", 1) for w in WEIGHTS)
    }
    stored = {n: panels(v) if n in ("w", "gu") else v for n, v in weights.items()}
    lowered = Lowered(program(text, WEIGHTS, dtype), stored, tmp_path_factory.mktemp(f"epilogues-{dtype}"))
    given = {n: torch.randn(TOKENS, *s, generator=random).to(torch_dtype) for n, s in SHAPES.items()}
    given["ids"] = torch.randint(0, 41, (TOKENS,), generator=random, dtype=torch.int32)
    return lowered, weights, given, dtype


def test_nothing_but_products_and_embeddings_is_left(case):
    calls = case[0].program.forward.calls
    assert {n.target.name for n in calls} == {"linear", "embedding"}
    assert sum("epilogue" in n.kwargs for n in calls) == len(CHAINS)


def test_an_epilogue_computes_its_ops(case):
    lowered, weights, given, dtype = case
    computed = lowered(given, TOKENS)
    expected = run_function(lowered.program.forward, given, weights.__getitem__)
    for name, value in computed.items():
        # A value on the edge between two bf16 may go either way, as the product sums in another order.
        assert relative_error(expected[name], value) <= (2e-5 if dtype == "f32" or name == "softcap" else 2**-8), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 5, 13, 36])
def test_a_row_does_not_depend_on_the_batch_or_the_threads(tokens, threads, case):
    lowered, _, given, _ = case
    whole = lowered(given, TOKENS)
    some = lowered({n: v[TOKENS - tokens :] for n, v in given.items()}, tokens, threads)
    for name, value in some.items():
        assert torch.equal(value.view(torch.uint8), whole[name][TOKENS - tokens :].contiguous().view(torch.uint8)), name
