"""``--emit onnx``: what is in the files, and that onnxruntime decodes with them as transformers does."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from xllmc.codegen.onnx.emitter import OnnxEmitter
from xllmc.compiler.emitting.check import ALLOWED
from xllmc.compiler.emitting.drive import EmitResult, emit_model
from xllmc.compiler.options import CompileOptions
from xllmc.runtime.artifact.pages import PAGE_TOKENS

from tests.checkpoints import make_checkpoint, probe_tokens, reference_logits, relative_difference
from tests.project.sources import ROOT

LAYERS = {"qwen3": 1, "gemma2": 2}
"""Of Gemma 2 one with a window and one without."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Family to a small checkpoint of it: exporters take a second a layer."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            directory = tmp_path_factory.mktemp(family)
            made[family] = make_checkpoint(family, directory, num_hidden_layers=LAYERS[family])
        return made[family]

    return get


@pytest.fixture(scope="module")
def emitted(model, tmp_path_factory):
    """Family to what was emitted of its float32 checkpoint."""
    made: dict[str, EmitResult] = {}

    def get(family: str) -> EmitResult:
        if family not in made:
            out = tmp_path_factory.mktemp("onnx") / f"{family}.onnx"
            options = CompileOptions(dtype="fp32", verification="off")
            made[family] = emit_model(model(family), out, OnnxEmitter(), options)
        return made[family]

    return get


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_a_small_model_is_verified_and_agrees_on_every_kind_of_step(emitted, family):
    result = emitted(family)
    assert [f.path.name for f in result.files] == [f"{family}.onnx", f"{family}.onnx.data"]
    assert [c.step for c in result.checks] == ["one token", "prefill", "decode", "mixed"]
    assert all(c.error < ALLOWED for c in result.checks) and result.unchecked is None
    assert all(f.path.stat().st_size == f.bytes for f in result.files)


def test_inputs_are_named_and_their_sizes_stay_open(emitted):
    written = onnx.load(emitted("gemma2").files[0].path, load_external_data=False)
    shapes = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in written.graph.input}
    assert shapes["token_ids"] == shapes["slots.1"] == ["T"]
    assert shapes["block_table.0"] == ["S", "B"] and shapes["query_starts"] == ["S + 1"]
    assert shapes["kv.0.keys"] == ["slots_0", 2, 32] and shapes["kv.1.values"] == ["slots_1", 2, 32]
    assert [o.name for o in written.graph.output][:2] == ["logits", "next.kv.0.keys"]
    assert not any(name.startswith("model.") for name in shapes), "weights are initializers, not inputs"
    assert written.producer_name == "xllmc"


def test_nothing_of_this_machine_is_in_the_file_and_weights_lie_beside_it(emitted):
    file, data = emitted("qwen3").files
    assert str(ROOT).encode() not in file.path.read_bytes() and b"site-packages" not in file.path.read_bytes()
    written = onnx.load(file.path, load_external_data=False)
    large = [i for i in written.graph.initializer if np.prod(i.dims) > 1024]
    assert large and all(i.data_location == onnx.TensorProto.EXTERNAL for i in large)
    assert data.bytes > 4 * sum(int(np.prod(i.dims)) for i in large) - 4096


def test_onnxruntime_decodes_with_it_as_transformers_does(emitted, model):
    """A prefill of 37 tokens and three steps of one, by hand: states go round as they come out."""
    tokens = probe_tokens(40)
    session = onnxruntime.InferenceSession(emitted("gemma2").files[0].path, providers=["CPUExecutionProvider"])
    caches = [i for i in session.get_inputs() if i.name.startswith("kv.")]
    states = {i.name: np.full((3 * PAGE_TOKENS, *i.shape[1:]), np.nan, np.float32) for i in caches}
    logits = []
    for start, stop in ((0, 37), (37, 38), (38, 39), (39, 40)):
        at = np.arange(start, stop, dtype=np.int32)
        table = np.array([[2, 0]], np.int32)
        slots = (table[0, at // PAGE_TOKENS] * PAGE_TOKENS + at % PAGE_TOKENS).astype(np.int32)
        inputs = {"token_ids": np.array(tokens[start:stop], np.int32), "positions": at}
        inputs |= {"query_starts": np.array([0, stop - start], np.int32), "logit_rows": at - start}
        inputs |= {f"slots.{g}": slots for g in (0, 1)} | {f"block_table.{g}": table for g in (0, 1)}
        results = session.run(None, inputs | states)
        named = {o.name: value for o, value in zip(session.get_outputs(), results, strict=True)}
        states = {name: named[f"next.{name}"] for name in states}
        logits.append(named["logits"])
    expected = reference_logits(model("gemma2"), tokens)
    assert relative_difference(np.concatenate(logits), expected) < 1e-4


def test_bf16_is_written_in_bf16_and_compared_in_float32(model, tmp_path):
    options = CompileOptions(dtype="bf16", random_weights=1, verification="off")
    result = emit_model(model("qwen3"), tmp_path / "x.onnx", OnnxEmitter(), options)
    written = onnx.load(result.files[0].path)
    by_name = {i.name: i.data_type for i in written.graph.initializer}
    assert by_name["lm_head.weight"] == onnx.TensorProto.BFLOAT16
    assert len(result.checks) == 4 and max(c.error for c in result.checks) < ALLOWED
    weight = next(i for i in written.graph.initializer if i.name == "lm_head.weight")
    values = torch.frombuffer(bytearray(weight.raw_data), dtype=torch.bfloat16)
    assert 0.015 < float(values.float().std()) < 0.025
