"""Whatever pointwise ops and row reductions are put together, the device loops they become compute them."""

import tempfile
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.ir.interpret import run_function
from xllmc.compiler.ir.types import TORCH_DTYPES

from tests.codegen.triton.interpreted import Interpreted
from tests.codegen.triton.lowered_stage import for_device
from tests.programs import program
from tests.random_chains import chain_functions

TOKENS = 7
BOUNDS = {"f32": 2e-5, "bf16": 2**-7, "f16": 2**-9}


# Every example starts many kernels, so few are tried.
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(chain_functions(("f32", "bf16", "f16")))
def test_loops_compute_what_the_interpreter_does(case):
    text, dtype, width = case
    random = torch.Generator().manual_seed(width)
    kind = TORCH_DTYPES[dtype]
    inputs = {n: torch.randn(TOKENS, w, generator=random).to(kind) for n, w in (("x", width), ("z", width), ("r", 1))}
    weight = torch.randn(width, generator=random).to(kind)
    made = for_device(program(text, [f"w [{width}]"], dtype))
    with tempfile.TemporaryDirectory() as work:
        device = Interpreted(made, {"w": weight}, Path(work))
        computed = device(inputs, {"T": TOKENS}, {"T": 70})
        alone = device({n: v[3:4] for n, v in inputs.items()}, {"T": 1})
    expected = run_function(made.forward, inputs, lambda name: weight)
    for name, value in computed.items():
        assert relative_error(expected[name], value) <= BOUNDS[dtype], name
        assert torch.equal(value[3:4].contiguous().view(torch.uint8), alone[name].view(torch.uint8)), name
