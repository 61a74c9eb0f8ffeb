"""Calls are held against the schemas that torch_npu has: a call that does not fit is refused while lowering."""

import pytest
import torch
from xllmc.codegen.ascend.graph.schemas import Lengths, Value, call_code, check_call, snapshot
from xllmc.codegen.ascend.graph.snapshot import OPERATORS
from xllmc.runtime.artifact.errors import XllmcError

X, W = Value("x"), Value("w")


def test_the_snapshot_is_of_the_operators_and_the_version_that_it_says():
    version, schemas = snapshot()
    assert version == "2.13.0"
    assert sorted(schemas) == sorted(OPERATORS)
    assert {schema.name for schema in schemas.values()} == {f"npu::{name.split('.')[0]}" for name in OPERATORS}


@pytest.mark.parametrize(
    ("operator", "positional", "named", "results"),
    [
        ("npu_rms_norm", [X, W], {"epsilon": 1e-5}, 2),
        ("npu_rms_norm", [X], {"gamma": W}, 2),
        ("npu_swiglu", [X, -1], {}, 1),
        ("npu_layer_norm_eval", [X, (64,), W, None], {}, 1),
        ("npu_scatter_pa_kv_cache", [X, X, W, W, X], {"cache_mode": "Norm"}, 0),
        ("npu_fused_infer_attention_score", [X, X, X], {"actual_seq_lengths": Lengths("step.query_ends")}, 2),
    ],
)
def test_a_call_that_fits_has_as_many_results_as_the_schema(operator, positional, named, results):
    assert check_call(operator, positional, named) == results


@pytest.mark.parametrize(
    ("operator", "positional", "named", "said"),
    [
        ("npu_rms_normal", [X, W], {}, "no operator npu_rms_normal"),
        ("npu_rms_norm", [X], {}, "requires gamma"),
        ("npu_rms_norm", [X, W, 1e-5, X], {}, "takes 3 positional arguments, got 4"),
        ("npu_rms_norm", [X, W], {"eps": 1e-5}, "no argument eps"),
        ("npu_rms_norm", [X, W, 1e-5], {"epsilon": 1e-5}, "got epsilon twice"),
        ("npu_rms_norm", [X, W], {"epsilon": 1}, "requires float for epsilon, got 1"),
        ("npu_rms_norm", [X, None], {}, "requires Tensor for gamma, got None"),
        ("npu_swiglu", [X], {"dim": True}, "requires int for dim, got True"),
        ("npu_add_layer_norm", [X, X, W, W], {"additional_output": 1}, "requires bool for additional_output"),
        ("npu_rotary_mul", [X, W, W], {"rotary_mode": 0}, "requires str for rotary_mode"),
        ("npu_layer_norm_eval", [X, 64], {}, "for normalized_shape, got 64"),
        ("npu_scatter_pa_kv_cache", [X, X, W, W, Lengths("slots")], {}, "requires Tensor for slot_mapping"),
        ("npu_fused_infer_attention_score", [X, X, X, W], {}, "takes 3 positional arguments, got 4"),
        ("npu_fused_infer_attention_score", [X, X, X], {"actual_seq_lengths": W}, "for actual_seq_lengths, got"),
        ("npu_fused_infer_attention_score", [X, X, X], {"block_table": (1, 2)}, "for block_table, got"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(operator, positional, named, said):
    with pytest.raises(XllmcError, match=r"torch_npu 2\.13\.0") as raised:
        check_call(operator, positional, named)
    assert said in str(raised.value)


def test_a_call_reads_as_python():
    assert call_code("npu_rms_norm", [X, W], {"epsilon": 1e-5}) == "npu.npu_rms_norm(x, w, epsilon=1e-05)"
    long = call_code("npu_add_rms_norm", [Value("x" * 50), Value("y" * 50), W], {"epsilon": 1e-6})
    assert long.splitlines()[1] == f"    {'x' * 50},"


def test_torch_parses_what_a_call_is_held_against():
    _, schemas = snapshot()
    assert all(isinstance(schema, torch._C.FunctionSchema) for schema in schemas.values())
