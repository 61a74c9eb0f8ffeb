"""Generated loops compute what their ops mean, for every op, shape and dtype, and a row's bits are its own."""

import pytest
import torch
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.ir.interpret import run_function

from tests.chains import CHAINS, EXACT, TOKENS, WEIGHT, chain_inputs, chain_program
from tests.lowering import Lowered


@pytest.fixture(scope="module")
def lowered(tmp_path_factory) -> Lowered:
    return Lowered(chain_program(), {"w": WEIGHT}, tmp_path_factory.mktemp("loops"))


@pytest.fixture(scope="module")
def computed(lowered) -> dict[str, torch.Tensor]:
    return lowered(chain_inputs(), TOKENS)


@pytest.fixture(scope="module")
def expected(lowered) -> dict[str, torch.Tensor]:
    return run_function(lowered.program.forward, chain_inputs(), lambda name: WEIGHT)


@pytest.mark.parametrize("name", CHAINS)
def test_a_generated_kernel_computes_its_ops(name, computed, expected):
    allowed = 2**-8 if computed[name].dtype == torch.bfloat16 else 1e-5
    assert relative_error(expected[name], computed[name]) <= (0.0 if name in EXACT else allowed)


def test_pointwise_chains_are_loops_and_nothing_is_left_alone(lowered):
    ops = {n.target.name for n in lowered.program.forward.calls}
    assert ops == {"loop", "get", "slice", "concat", "permute", "take_rows"}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 16, 36])
def test_a_row_does_not_depend_on_the_others(tokens, threads, lowered, computed):
    for name, value in lowered(chain_inputs(tokens), tokens, threads).items():
        raw, whole = value.view(torch.uint8), computed[name][:tokens].view(torch.uint8)
        assert torch.equal(raw, whole), name
