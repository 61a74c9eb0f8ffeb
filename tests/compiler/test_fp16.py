"""Programs in float16: for devices. They take the same rewrites as in bfloat16, and stay the model."""

import numpy as np
import pytest
import torch
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.check.samples import Samples
from xllmc.compiler.driver import compile_model, family_named
from xllmc.compiler.ir.dims import symbol
from xllmc.compiler.ir.program import Program
from xllmc.compiler.ir.types import TensorType
from xllmc.compiler.options import CompileOptions
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.compiler.pipeline.run import run
from xllmc.compiler.weight_source import CheckpointSource, RandomSource
from xllmc.models.config import load_config
from xllmc.models.trace import TraceOptions, eos_token_ids, trace
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.artifact.recipe import Recipe

from tests.checkpoints import FAMILIES, probe_tokens, reference_logits, relative_difference
from tests.interpreting import interpreted_logits


def lowered(directory, dtype: str) -> tuple[Program, dict[str, int]]:
    """The program after a device's passes, each checked numerically, and their matches."""
    config, source = load_config(directory), CheckpointSource(directory)
    options = TraceOptions(dtype, None, family_named(config.model_type)[0].handlers)
    traced, _ = trace(config, options, source.names(), eos_token_ids(directory, config))
    program, reports = run(traced, pass_list("cuda:sm_90").passes)
    return program, {r.name: r.matches for r in reports}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pass_matches_as_in_bf16_and_the_model_stays_itself(family, checkpoint):
    directory = checkpoint(family)
    program, matches = lowered(directory, "f16")
    assert matches == lowered(directory, "bf16")[1]
    tokens = probe_tokens(40)
    logits = interpreted_logits(program, CheckpointSource(directory), tokens, program.constants.__getitem__)
    assert relative_difference(logits, reference_logits(directory, tokens)) < 2**-7


def test_the_cpu_target_refuses_it_at_once(tmp_path):
    with pytest.raises(OptionError, match="the CPU target computes in bf16 or fp32, not in fp16"):
        compile_model(tmp_path / "no-model", tmp_path / "out", CompileOptions(dtype="fp16"))


def test_random_weights_have_it():
    invented = RandomSource(3).read(Recipe.source("a.weight", (8, 16), "f16"))
    wide = RandomSource(3).read(Recipe.source("a.weight", (8, 16), "f32"))
    assert invented.dtype == "f16" and invented.values.dtype == np.float16
    assert np.array_equal(invented.values, wide.values.astype(np.float16))


def test_sample_rows_stay_where_their_products_are_finite_and_not_zero():
    rows = Samples(0).value("x", TensorType("f16", (symbol("T"), 64)))
    assert (rows * rows).isfinite().all() and (rows[1] * rows[1]).abs().max() > 0


def test_below_the_smallest_normal_number_roundings_are_absolute():
    tiny = torch.tensor([[6e-8, 0.0]], dtype=torch.float16)
    assert relative_error(tiny, torch.zeros_like(tiny)) <= 2**-10
    assert relative_error(torch.tensor([[1e-4]], dtype=torch.float16), torch.zeros(1, 1, dtype=torch.float16)) == 1.0
    assert relative_error(torch.tensor([[6e-8]]), torch.zeros(1, 1)) == 1.0
