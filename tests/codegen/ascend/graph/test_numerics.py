"""The generated module, on CPU doubles of torch_npu's operators, computes what the interpreter computes.

In float32 both sides compute in float32. In bf16 the module rounds products before an activation or a wider result
reads them, and the interpreter after; the largest difference of logits that was seen is 0.0124 of the largest logit.
"""

from pathlib import Path

import pytest

from tests.codegen.ascend.graph.models import BOUNDS, largest_difference, load_text, run_module

ATTENTION = "npu_fused_infer_attention_score"


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma2", "gpt2"])
def test_prefill_decode_and_mixed_steps_are_the_models(family, dtype, loops, case, tmp_path: Path):
    made = case(family, dtype, loops)
    module = load_text(made.graph.text, tmp_path)
    assert largest_difference(run_module(module, made.model), made.expected) < BOUNDS[dtype]


def test_operators_of_torch_npu_do_what_they_can(case):
    graph = case("qwen3", "bf16").graph
    assert graph.operators == {
        "npu_rms_norm": 5,
        "npu_add_rms_norm": 4,
        "npu_rotary_mul": 4,
        "npu_scatter_pa_kv_cache": 2,
        ATTENTION: 2,
        "npu_swiglu": 2,
    }
    assert graph.plain == {}


@pytest.mark.parametrize(
    ("family", "dtype", "plain"),
    [
        ("gemma2", "bf16", ["paged_attention: the operator has no soft cap", "linear: a gate of gelu_tanh"]),
        ("llama", "fp32", ["paged_attention: the operator takes bf16 and f16, not f32"]),
    ],
)
def test_what_plain_torch_does_instead_is_said(family, dtype, plain, case):
    graph = case(family, dtype).graph
    assert ATTENTION not in graph.operators
    assert list(graph.plain) == plain
    for line in plain:
        assert f"- {line}" in graph.text.split('"""')[1]


def test_nothing_in_the_module_waits_for_the_device(case):
    """A value that comes to the host cannot be captured."""
    for family in ("qwen3", "gemma2"):
        text = case(family, "bf16").graph.text
        assert not [word for word in (".item(", ".tolist(", ".cpu(", ".nonzero(", "bool(", "int(") if word in text]


def test_scores_are_those_of_given_tokens(case, tmp_path: Path):
    made = case("llama", "fp32")
    module = load_text(made.graph.text, tmp_path)
    logits = made.expected[0]
    targets = logits.argsort(-1)[:, 7].int()
    step = module.Step({"logits": logits, "targets": targets}, [], [], 0)
    expected = logits.log_softmax(-1).gather(-1, targets.long()[:, None])[:, 0]
    assert (module.score({}, {}, step)["logprob"] == expected).all()
    assert not hasattr(module, "sample")
