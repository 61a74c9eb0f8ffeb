"""From a program to the text of a Python module of torch code over torch_npu's operators.

    text = graph_module(program)        # ascend/model.py of an engine

The program is one after all passes but ``pack-weights``. The module depends on torch and on torch_npu, or on whatever
else registered operators of these schemas. It has been run on the CPU alone, where doubles stand behind the schemas,
and, of four small models, on meta tensors through torch_npu's own meta kernels.

What it takes for granted of the operators is what torch_npu 2.13.0 documents, and one thing on which its pages differ:
that ``npu_fused_infer_attention_score`` takes block tables together with the layout ``TND``, for any size of head.
"""

import inspect
import re
import textwrap
from dataclasses import dataclass

from ....compiler.ir.program import Function, Program, type_of
from ....compiler.ir.types import TensorType
from . import providers as providers  # which registers how xllmc's own ops are written
from .call import write_call
from .providers.attention import PAGE_TOKENS
from .schemas import snapshot
from .writer import FunctionWriter, Module

LEFT_OUT = "sample"
"""The function that the module lacks: the host chooses tokens from the logits."""

IMPORTS = """\
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
"""

HEAD = '''\
class CacheShape(NamedTuple):
    """The shape of a layer's pages: keys [pages, PAGE_TOKENS, kv_heads, key_dim], and values likewise."""

    group: int
    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype


class Pages(NamedTuple):
    """The cache of a layer."""

    keys: Tensor
    values: Tensor


class Step(NamedTuple):
    """What a step works on. Pages of block tables, and slots, are of PAGE_TOKENS positions."""

    inputs: Mapping[str, Tensor]
    """By name, on the device."""
    query_ends: list[int]
    """Of each sequence: how many tokens there are up to its end."""
    kv_lengths: list[int]
    """Of each sequence: how many positions it has, those of this step included."""
    most: int
    """No sequence has more tokens in this step."""
'''


@dataclass(frozen=True)
class GraphModule:
    text: str
    operators: dict[str, int]
    """Operators of torch_npu, and how many calls of each there are."""
    plain: dict[str, int]
    """What is left to torch's own operators where one of torch_npu might be expected, why, and how often."""


def graph_module(program: Program) -> str:
    """The module's text. XllmcError names an op that nothing writes, and a call that fits no schema."""
    return lower_graph(program).text


def lower_graph(program: Program) -> GraphModule:
    """The same, with what it calls."""
    module = Module(program)
    functions = [_function(module, f) for name, f in program.functions.items() if name != LEFT_OUT]
    parts = [
        _docstring(module),
        IMPORTS.rstrip(),
        f"npu = torch.ops.npu\nPAGE_TOKENS = {PAGE_TOKENS}",
        HEAD.rstrip(),
        "\n".join([_inputs(program.forward), _caches(program)]),
        *(inspect.getsource(helper).rstrip() for helper in module.helpers.values()),
        _prepare(module),
        *functions,
    ]
    return GraphModule("\n\n\n".join(parts) + "\n", module.operators, module.plain)


def _docstring(module: Module) -> str:
    architecture = re.sub(r"\W", " ", module.program.facts.architecture)  # a config's text, which must not become code
    version, _ = snapshot()
    lines = [
        f'"""{architecture} as torch code over the operators of torch_npu {version}. Written by xllmc.',
        "",
        "Load weights with ``prepare``; run ``forward`` on every step. There is no function that samples: the host",
        "chooses tokens from the logits. It has been run on no NPU.",
        *(["", "Plain torch does what no operator of torch_npu does:", ""] if module.plain else []),
        *(f"- {what} ({count} calls)" for what, count in module.plain.items()),
        '"""',
    ]
    return "\n".join(lines)


def _inputs(forward: Function) -> str:
    lines = ["INPUTS: dict[str, tuple[torch.dtype, tuple[str | int, ...]]] = {"]
    for node in forward.inputs:
        kind = type_of(node)
        if isinstance(kind, TensorType):
            sizes = tuple(s if isinstance(s, int) else str(s) for s in kind.shape)
            lines.append(f"    {str(node.target)!r}: ({kind.torch_dtype}, {sizes}),")
    return "\n".join(
        [*lines, "}", '"""Of ``forward``, by name: dtype and sizes. T tokens, S sequences, R rows, B pages."""']
    )


def _caches(program: Program) -> str:
    lines = ["CACHES: dict[str, CacheShape] = {"]
    for name, kind in program.states.items():
        dtype = TensorType(kind.dtype, ()).torch_dtype
        shape = f"{kind.group}, {kind.kv_heads}, {kind.key_dim}, {kind.value_dim}, {dtype}"
        lines.append(f"    {name!r}: CacheShape({shape}),")
    return "\n".join([*lines, "}"])


def _prepare(module: Module) -> str:
    lines = [
        "def prepare(stored: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:",
        '    """What the functions read, from the weights as the engine stores them, which are on ``device``."""',
        "    return {",
        *(f"        {name!r}: {made}," for name, made in module.prepared.items()),
        "    }",
    ]
    return "\n".join(lines)


def _function(module: Module, function: Function) -> str:
    writer = FunctionWriter(module)
    where = ""
    for node in function.calls:
        if (place := " ".join(node.meta.get("where", "").split())) != where:
            writer.say(f"# {place}")
            where = place
        write_call(writer, node)
    results = ", ".join(f"{n!r}: {writer.held(v)}" for n, v in zip(function.results, function.outputs, strict=True))
    writer.say(f"return {{{results}}}")
    head = [
        f"def {function.name}(",
        "    weights: Mapping[str, Tensor], caches: Mapping[str, Pages], step: Step",
        ") -> dict[str, Tensor]:",
        f'    """{", ".join(function.results)}: {", ".join(str(type_of(v)) for v in function.outputs)}."""',
    ]
    return "\n".join(head) + "\n" + textwrap.indent("\n".join(writer.body()), "    ")
