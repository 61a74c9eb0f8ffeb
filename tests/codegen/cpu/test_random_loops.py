"""Whatever pointwise ops and row reductions are put together, the loops they become compute them."""

import tempfile
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, settings
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.ir.interpret import run_function

from tests.lowering import Lowered
from tests.programs import program
from tests.random_chains import chain_functions

TOKENS = 7


# Every example is compiled, so few are tried, and a failing one is shown as it came.
@settings(max_examples=4, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(chain_functions(("f32", "bf16")))
def test_loops_compute_what_the_interpreter_does(case):
    text, dtype, width = case
    random = torch.Generator().manual_seed(width)
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    inputs = {n: torch.randn(TOKENS, w, generator=random).to(kind) for n, w in (("x", width), ("z", width), ("r", 1))}
    weight = torch.randn(width, generator=random).to(kind)
    with tempfile.TemporaryDirectory() as work:
        lowered = Lowered(program(text, [f"w [{width}]"], dtype), {"w": weight}, Path(work))
        computed = {threads: lowered(inputs, TOKENS, threads) for threads in (1, 2)}
        alone = lowered({n: v[3:4] for n, v in inputs.items()}, 1)
    expected = run_function(lowered.program.forward, inputs, lambda name: weight)
    for name, value in computed[1].items():
        assert relative_error(expected[name], value) <= (2e-5 if dtype == "f32" else 2**-7), name
        assert torch.equal(value.view(torch.uint8), computed[2][name].view(torch.uint8)), name
        assert torch.equal(value[3:4].contiguous().view(torch.uint8), alone[name].view(torch.uint8)), name
