"""Every stage of the compile, read back from the engine and interpreted, is still the model."""

import pytest
from xllmc.compiler.ir.parse import parse_program
from xllmc.compiler.ops import OPS
from xllmc.compiler.weight_source import CheckpointSource
from xllmc.runtime.artifact.reader import read_manifest

from tests.checkpoints import FAMILIES, probe_tokens, reference_logits, relative_difference
from tests.interpreting import interpreted_logits

LENGTH = 40


BOUNDS = {"fp32": 1e-5, "bf16": 2**-4}


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("stage", ["canonical", "recognised", "fused", "lowered"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_computes_the_same(family, stage, dtype, checkpoint, engine_dir, loaded):
    directory = engine_dir(family, dtype)
    program = parse_program((directory / read_manifest(directory).graphs[stage]).read_text(), OPS)
    weights = loaded(family, dtype).weights
    tokens = probe_tokens(LENGTH)
    source = CheckpointSource(checkpoint(family))
    logits = interpreted_logits(program, source, tokens, weights.tensor)
    assert relative_difference(logits, reference_logits(checkpoint(family), tokens)) < BOUNDS[dtype]
