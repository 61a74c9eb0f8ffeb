"""``--emit mlir``: what is in the files, and that MLIR's execution engine computes with them what the ops mean."""

import json

import numpy as np
import pytest
import torch
from torch_mlir import ir
from xllmc.codegen.mlir.emitter import MlirEmitter
from xllmc.codegen.mlir.scatter import put_rows
from xllmc.compiler.emitting.check import ALLOWED
from xllmc.compiler.emitting.drive import EmitResult, emit_model
from xllmc.compiler.options import CompileOptions
from xllmc.runtime.artifact.safetensors_file import SafetensorsFile

from tests.checkpoints import make_checkpoint

UPSTREAM = {"affine", "arith", "cf", "func", "linalg", "math", "scf", "tensor", "builtin"}


LAYERS = {"qwen3": 1, "gemma2": 2}
"""Of Gemma 2 one with a window and one without."""


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    """Family to what was emitted of a small float32 checkpoint of it."""
    made: dict[str, EmitResult] = {}

    def get(family: str) -> EmitResult:
        if family not in made:
            place = tmp_path_factory.mktemp(family)
            model = make_checkpoint(family, place / "model", num_hidden_layers=LAYERS[family])
            options = CompileOptions(dtype="fp32", verification="off")
            made[family] = emit_model(model, place / f"{family}.mlir", MlirEmitter(), options)
        return made[family]

    return get


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_a_small_model_is_verified_and_agrees_on_every_kind_of_step(emitted, family):
    result = emitted(family)
    assert [f.path.suffix for f in result.files] == [".mlir", ".json", ".safetensors"]
    assert [c.step for c in result.checks] == ["one token", "prefill", "decode", "mixed"]
    assert all(c.error < ALLOWED for c in result.checks) and result.unchecked is None


def operations(operation: ir.Operation) -> set[str]:
    """Names of it and of all within."""
    names = {operation.name}
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                names |= operations(inner.operation)
    return names


def test_the_text_is_linalg_on_tensors_that_upstream_mlir_has(emitted):
    text = emitted("gemma2").files[0].path.read_text()
    with ir.Context():
        names = operations(ir.Module.parse(text).operation)
    assert {name.split(".")[0] for name in names} <= UPSTREAM and "linalg.generic" in names
    assert "memref" not in text and len(text) < 1_000_000, "weights are arguments, not text"


def test_the_description_lists_arguments_in_order(emitted):
    text, described, weights = (f.path for f in emitted("qwen3").files)
    said = json.loads(described.read_text())
    with ir.Context():
        module = ir.Module.parse(text.read_text())
        function = next(o for o in module.body.operations if ir.StringAttr(o.attributes["sym_name"]).value == "forward")
        types = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)
        ranks = [[len(ir.RankedTensorType(t).shape) for t in side] for side in (types.inputs, types.results)]
    assert ranks == [[len(a["shape"]) for a in said[side]] for side in ("arguments", "results")]
    assert said["arguments"][0] == {"name": "token_ids", "kind": "input", "dtype": "i32", "shape": ["T"]}
    named = {a["name"]: a for a in said["arguments"] if a["kind"] == "weight"}
    stored = SafetensorsFile(weights).entries
    assert stored.keys() == named.keys() and said["weights"] == weights.name
    assert all(list(entry.shape) == named[name]["shape"] for name, entry in stored.items())


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_put_as_a_scatter_puts_them(seed):
    rng = np.random.default_rng(seed)
    x, values = (torch.from_numpy(rng.standard_normal((n, 2, 3), np.float32)) for n in (9, 4))
    index = torch.from_numpy(rng.permutation(9)[:4])
    assert torch.equal(put_rows(x, (index,), values), torch.index_put(x, (index,), values))
    assert torch.equal(put_rows(x, (torch.tensor([3, 3]),), values[:2])[3], values[1]), "the last one stays"


def test_other_scatters_are_left_as_they_are():
    x, index = torch.zeros(4, 4), torch.tensor([1])
    assert put_rows(x, (index, index), torch.ones(1)) is NotImplemented
    assert put_rows(x, (index,), torch.ones(1, 4), accumulate=True) is NotImplemented
