"""Kernels per layer stay at or under what TorchInductor makes of the same layer."""

import json

import pytest
from xllmc.bench.fusion import FEW, MANY, MODELS, our_launches, with_layers
from xllmc.bench.inductor import CALL, inductor_calls, kind_of

from tests.project.sources import ROOT

RECORDED = json.loads(max(ROOT.glob("bench/results/fusion-*.json")).read_text())["kernels_per_layer"]

GENERATED = """
cpp_fused_add_0 = async_compile.cpp_pybinding(['const float*'], r'''
''')
def call(args):
    arg0_1, = args
    cpp_fused_add_0(arg0_1, buf0, s27)
    cpp_fused__scaled_dot_product_flash_attention_for_cpu_cat_1(buf0, s27)
    extern_kernels.mm(buf0, arg1_1, out=buf1)
    buf2 = torch.ops.mkldnn._linear_pointwise.default(buf1, arg2_1, None, 'none', [], '')
    buf3 = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default(buf2, buf2, buf2)
    assert_size_stride(buf3, (1, s27), (s27, 1), 'torch.ops.aten.cumsum.default')
    buf4 = torch.ops.aten.cumsum.default(buf3, dim=-1)
    buf5 = empty_strided_cpu((s27, 64), (64, 1), torch.float32)
"""


def test_calls_of_generated_code_are_told_apart():
    kinds = [kind_of(call) for call in CALL.findall(GENERATED)]
    assert kinds == ["generated", "generated", "product", "product", "attention", "other"]


@pytest.mark.parametrize("family", MODELS)
def test_a_layer_takes_no_more_kernels_than_recorded(family, tmp_path):
    few, many = (our_launches(tmp_path, with_layers(family, layers)).total() for layers in (FEW, MANY))
    ours = (many - few) / (MANY - FEW)
    assert ours <= RECORDED[family]["xllmc"]
    assert ours <= min(RECORDED[family]["inductor"], RECORDED[family]["inductor_frozen"])


@pytest.mark.slow
@pytest.mark.parametrize("freezing", [False, True])
def test_inductor_is_counted_as_it_was_recorded(freezing):
    few, many = (inductor_calls(with_layers("gpt2", n), "sdpa", freezing).total() for n in (FEW, MANY))
    assert (many - few) / (MANY - FEW) == RECORDED["gpt2"]["inductor_frozen" if freezing else "inductor"]
