"""Matrix products on the interpreter: every variant, option and dtype, and more rows captured than there are."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from xllmc.codegen.triton import configs
from xllmc.codegen.triton.architecture import Architecture
from xllmc.codegen.triton.kernel import Config
from xllmc.codegen.triton.predict import Problem

from tests.codegen.triton.checking import check_op, check_program
from tests.codegen.triton.interpreted import Interpreted
from tests.programs import program

DTYPES = ["f32", "bf16", "f16"]


def check_linear(
    work: Path,
    dtype: str,
    n: int,
    k: int,
    *,
    tokens: int = 3,
    captured: int | None = None,
    bias: bool = False,
    invariant: bool = False,
    architecture: str = "sm_90",
    **attributes: object,
) -> torch.Tensor:
    """Check one linear with random operands; ``n``: columns of the result."""
    rows = 2 * (-(-n // 16) * 16) if attributes.get("gated") else n
    operands = ["%x", "@w", "@b" if bias else "none"]
    weights = {"w": f"[{rows}, {k}]"} | ({"b": f"[{rows}]"} if bias else {})
    results = check_op(
        "linear",
        operands,
        {"x": f"{dtype}[T, {k}]"},
        weights,
        attributes,
        dtype,
        work,
        tokens=tokens,
        captured=captured,
        invariant=invariant,
        architecture=architecture,
    )
    return results["out"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "captured"), [(1, 1), (3, 16), (33, 64), (70, 128), (130, 512), (20, 600)])
def test_every_range_of_rows(tokens: int, captured: int, dtype: str, tmp_path: Path):
    check_linear(tmp_path, dtype, 48, 64, tokens=tokens, captured=captured)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 5, 40, 70])
@pytest.mark.parametrize(("n", "k"), [(35, 40), (7, 9), (130, 72)])
def test_odd_sizes(n: int, k: int, tokens: int, dtype: str, tmp_path: Path):
    check_linear(tmp_path, dtype, n, k, tokens=tokens, bias=True)


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("activation", ["none", "silu", "relu", "gelu_erf", "gelu_tanh", "tanh", "sigmoid"])
def test_activations(activation: str, tokens: int, tmp_path: Path):
    check_linear(tmp_path, "f32", 32, 32, tokens=tokens, bias=True, activation=activation)
    check_linear(tmp_path, "f32", 32, 32, tokens=tokens, gated=32, activation=activation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 5, 40, 70])
@pytest.mark.parametrize("n", [16, 40, 72])
def test_gated(n: int, tokens: int, dtype: str, tmp_path: Path):
    check_linear(tmp_path, dtype, n, 48, tokens=tokens, gated=n, activation="silu")


def test_float32_logits_of_wanted_rows(tmp_path: Path):
    made = program(
        "func forward(%x: bf16[R, 64]) -> (logits) {\n"
        '  %y: f32[R, 80] = linear(%x, @w, none, out_dtype="f32")\n  return %y\n}',
        ["w [80, 64]"],
        "bf16",
    )
    for rows in (1, 6):
        check_program(made, tmp_path, tokens=rows, captured=rows + 3)


def test_rows_that_are_a_multiple_of_the_tokens(tmp_path: Path):
    """Four rows a token: the captured token count that ends a variant is a quarter of its rows."""
    made = program(
        "func forward(%x: f32[T, 4, 32]) -> (y) {\n  %y: f32[T, 4, 24] = linear(%x, @w, none)\n  return %y\n}",
        ["w [24, 32]"],
    )
    for tokens, captured in [(1, 1), (3, 4), (4, 5), (16, 17)]:
        check_program(made, tmp_path, tokens=tokens, captured=captured)


def test_a_fixed_number_of_rows_needs_one_variant(tmp_path: Path):
    made = program(
        "func forward(%x: f32[6, 32]) -> (y) {\n  %y: f32[6, 24] = linear(%x, @w, none)\n  return %y\n}", ["w [24, 32]"]
    )
    check_program(made, tmp_path)
    launches = Interpreted(made, {"w": torch.zeros(24, 32)}, tmp_path).plan.functions[0].launches
    assert len(launches) == 1 and launches[0].when == ()


def use_for_16_rows(monkeypatch: pytest.MonkeyPatch, tiles: dict[str, int]) -> None:
    chosen = configs.choose

    def choose(problem: Problem, machine: Architecture) -> Config:
        return Config(tiles, 1, 3) if problem.rows == 16 else chosen(problem, machine)

    monkeypatch.setattr(configs, "choose", choose)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gated", [0, 40])
def test_pieces_of_k_have_programs_and_are_added(
    gated: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tiles = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 16, "SPLIT": 4, "WALK": 0, "SWAP": 1, "GROUP": 1}
    use_for_16_rows(monkeypatch, tiles)
    check_linear(tmp_path, dtype, 40, 128, tokens=16, captured=16, gated=gated, activation="silu", bias=not gated)


@pytest.mark.parametrize("swap", [0, 1])
@pytest.mark.parametrize(("tokens", "captured"), [(30, 30), (70, 130)])
def test_groups_of_row_blocks_cover_the_result(
    tokens: int, captured: int, swap: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Block counts that the group does not divide, on both axes."""
    tiles = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 32, "SPLIT": 1, "WALK": 0, "SWAP": swap, "GROUP": 4}
    monkeypatch.setattr(configs, "choose", lambda problem, machine: Config(tiles, 1, 3))
    check_linear(tmp_path, "f32", 40, 64, tokens=tokens, captured=captured)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("gated", [0, 48])
@pytest.mark.parametrize("dtype", DTYPES)
def test_invariant_mode_is_right_for_all_rows(dtype: str, gated: int, architecture: str, tmp_path: Path):
    for tokens in (1, 20, 70):
        check_linear(tmp_path, dtype, 48, 256, tokens=tokens, gated=gated, invariant=True, architecture=architecture)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_invariant_mode_adds_pieces_in_one_order(dtype: str, tmp_path: Path):
    """Integers, so that the sum of a piece is exact in any order; pieces of different size, so that theirs is not."""
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    made = program(
        f"func forward(%x: {dtype}[T, 1024]) -> (y) {{\n"
        '  %y: f32[T, 32] = linear(%x, @w, none, out_dtype="f32")\n  return %y\n}',
        ["w [32, 1024]"],
        dtype,
    )
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-8, 9, (32, 1024), generator=generator).float()
    device = Interpreted(made, {"w": weight.to(kind)}, tmp_path, invariant=True)
    launches = device.plan.functions[0].launches
    split = launches[0].grid[2][0].factor
    assert split > 1 and [launch.grid[2][0].factor for launch in launches[1:]] == [1, 1]
    sizes = (2.0 ** torch.tensor([0, 21, 7, 14, 3, 18, 1, 10])).repeat(-(-split // 8))[:split]
    weight = (weight.reshape(32, split, -1) * sizes[:, None]).reshape(32, 1024).to(kind)
    device = Interpreted(made, {"w": weight}, tmp_path, invariant=True)
    x = torch.randint(-8, 9, (70, 1024), generator=generator).to(kind)
    whole = device({"x": x}, {"T": 70})["y"]
    assert not torch.equal(whole, (x.double() @ weight.double().T).float()), "the order of sums does not show"
    for tokens in (1, 20, 65):
        assert torch.equal(device({"x": x[-tokens:]}, {"T": tokens})["y"], whole[-tokens:])


@examples(max_examples=15)
@given(
    n=st.integers(1, 90),
    k=st.integers(1, 140),
    tokens=st.integers(1, 70),
    more=st.integers(0, 70),
    gated=st.booleans(),
    invariant=st.booleans(),
)
def test_any_sizes(
    n: int, k: int, tokens: int, more: int, gated: bool, invariant: bool, tmp_path_factory: pytest.TempPathFactory
):
    work = tmp_path_factory.mktemp("sizes")
    check_linear(work, "f32", n, k, tokens=tokens, captured=tokens + more, gated=n if gated else 0, invariant=invariant)
