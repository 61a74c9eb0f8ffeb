"""What TorchInductor makes of a transformers model: the kernels that its generated code calls."""

import re
import warnings
from collections import Counter
from contextlib import suppress
from unittest import mock

import torch
from torch import nn
from torch._inductor import config as inductor_config
from torch._inductor.graph import GraphLowering
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS = 17
CALL = re.compile(r"^\s+(?:\w+ = )?(cpp_fused\w*|extern_kernels\.\w+|torch\.ops\.[\w.]+)\(", re.MULTILINE)
KINDS = {
    "generated": re.compile(r"cpp_fused"),
    "attention": re.compile(r"scaled_dot_product"),
    "product": re.compile(r"extern_kernels\.(mm|addmm|bmm|baddbmm)|_linear_pointwise"),
}
"""Tried in order: generated kernels are named after what they hold, even a part of the attention op."""


class _NotCompiled(Exception):
    """Raised by what stands for a compiled module."""


class _Module:
    def call(self, *operands: object) -> None:
        raise _NotCompiled


def inductor_calls(config: dict[str, object], attention: str, freezing: bool) -> Counter[str]:
    """Kernels that one forward pass calls, by kind: generated, product, attention, other.

    The model of ``config`` in bfloat16, without a cache, with a symbolic number of tokens, in one graph. ``attention``:
    transformers' implementation. ``freezing``: weights as constants, packed for oneDNN, which then takes epilogues.
    """
    options = dict(config)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(str(options.pop("model_type")), **options), attn_implementation=attention
    )
    return Counter(kind_of(call) for call in CALL.findall(generated_code(model.to(torch.bfloat16).eval(), freezing)))


def kind_of(call: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if pattern.search(call)), "other")


def generated_code(model: nn.Module, freezing: bool) -> str:
    """The Python that Inductor writes to call its kernels; the kernels themselves are not compiled."""
    code: list[str] = []

    def capture(graph: GraphLowering) -> _Module:
        code.append(graph.codegen()[0].value)
        return _Module()

    def forward(token_ids: torch.Tensor) -> torch.Tensor:
        return model(token_ids, use_cache=False).logits

    token_ids = torch.arange(TOKENS)[None]
    torch._dynamo.reset()
    torch._dynamo.mark_dynamic(token_ids, 1)
    settings = inductor_config.patch(freezing=freezing, force_disable_caches=True)
    patched = mock.patch.object(GraphLowering, "compile_to_module", capture)
    with torch.no_grad(), settings, patched, suppress(_NotCompiled), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dynamo_pgo")  # which says that its cache is off, as asked for
        torch.compile(forward, dynamic=True, fullgraph=True)(token_ids)
    return "\n".join(code)
