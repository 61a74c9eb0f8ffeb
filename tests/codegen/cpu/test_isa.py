"""One engine, one weight layout: every instruction-set level that it was built for gives transformers' logits."""

import pytest
from xllmc.compiler.driver import compile_model
from xllmc.compiler.options import CompileOptions
from xllmc.runtime.artifact.isa import supported_isas
from xllmc.runtime.engine import Engine

from tests.checkpoints import probe_tokens, reference_logits, relative_difference

LENGTH = 45
BOUNDS = {"fp32": 1e-4, "bf16": 2**-4}


@pytest.fixture(scope="module", params=BOUNDS)
def built(request, checkpoint, tmp_path_factory):
    """(dtype, an engine built for all levels)."""
    out = tmp_path_factory.mktemp("isa") / "all.engine"
    compile_model(checkpoint("qwen3"), out, CompileOptions(dtype=request.param))
    return request.param, out


@pytest.mark.parametrize("level", supported_isas())
def test_every_level_gives_the_models_logits(level, built, checkpoint):
    dtype, engine_dir = built
    tokens = probe_tokens(LENGTH)
    with Engine.load(engine_dir, isa=level, kv_tokens=64) as engine:
        logits = engine.logits(tokens)
    assert relative_difference(logits, reference_logits(checkpoint("qwen3"), tokens)) < BOUNDS[dtype]
