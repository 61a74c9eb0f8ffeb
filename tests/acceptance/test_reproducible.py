"""Compiling twice gives the same bytes, and a weight update gives the bytes of compiling the new checkpoint."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from xllmc.runtime.artifact.errors import CheckpointError
from xllmc.runtime.engine import Engine

from tests.checkpoints import FAMILIES, make_checkpoint, probe_tokens
from tests.engines import compile_engine, engine_contents, load_engine
from tests.project.sources import ROOT

COMPILE = """
import sys
from pathlib import Path
from tests.engines import compile_engine
compile_engine(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_compiling_elsewhere_in_another_process_gives_the_same_bytes(
    family: str, checkpoint, engine_dir, tmp_path: Path
):
    model = tmp_path / "another name"
    shutil.copytree(checkpoint(family), model)
    out = tmp_path / "again.engine"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", COMPILE, model, out], check=True, cwd=ROOT, env=environment)
    assert engine_contents(out) == engine_contents(engine_dir(family, "fp32"))


def packed_bytes(engine: Engine) -> dict[str, bytes]:
    return {entry.name: engine.weights.tensor(entry.name).values.tobytes() for entry in engine.manifest.weights}


@pytest.mark.parametrize(("family", "dtype"), [*((family, "fp32") for family in FAMILIES), ("qwen3", "bf16")])
def test_updating_gives_the_bytes_of_compiling(family: str, dtype: str, engine_dir, checkpoint, tmp_path: Path):
    other = make_checkpoint(family, tmp_path / "other", seed=5)
    tokens = probe_tokens(40)
    with load_engine(compile_engine(other, tmp_path / "other.engine", dtype)) as compiled:
        wanted, logits = packed_bytes(compiled), compiled.logits(tokens)
    with load_engine(engine_dir(family, dtype)) as engine:
        assert packed_bytes(engine) != wanted
        assert engine.update_weights(other) == 1
        assert packed_bytes(engine) == wanted
        assert np.array_equal(engine.logits(tokens), logits)
        assert engine.update_weights(load_file(checkpoint(family) / "model.safetensors"), version=7) == 7
        assert packed_bytes(engine) != wanted


def test_a_refused_update_changes_nothing(engine_dir, checkpoint):
    tokens = probe_tokens(40)
    tensors = load_file(checkpoint("gpt2") / "model.safetensors")
    lacking = {name: values for name, values in tensors.items() if not name.endswith("h.1.mlp.c_fc.weight")}
    with load_engine(engine_dir("gpt2", "fp32")) as engine:
        before, version = engine.logits(tokens), engine.weights.version
        with pytest.raises(CheckpointError, match=r"h\.1\.mlp\.c_fc\.weight"):
            engine.update_weights(lacking)
        assert engine.weights.version == version
        assert np.array_equal(engine.logits(tokens), before)
