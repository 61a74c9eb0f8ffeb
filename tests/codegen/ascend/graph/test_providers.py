"""Each op as torch code, in programs of one op or few, against the interpreter on hostile samples."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional
from xllmc.codegen.ascend.graph.call import LOOSE, NpuCall
from xllmc.codegen.ascend.graph.lower import lower_graph
from xllmc.codegen.ascend.graph.schemas import Value
from xllmc.compiler.check.samples import Samples
from xllmc.compiler.ir.interpret import run_function
from xllmc.compiler.ir.program import Program, type_of
from xllmc.compiler.ir.types import PagedType
from xllmc.compiler.ops import OPS
from xllmc.compiler.ops.attention import PagedCache
from xllmc.compiler.ops.registry import op
from xllmc.runtime.artifact.errors import XllmcError
from xllmc.runtime.artifact.pages import PAGE_TOKENS

from tests.codegen.ascend.graph.doubles import install
from tests.codegen.ascend.graph.models import load_text
from tests.programs import program

ROWS = "func forward(%x: f32[T, 16], %y: f32[T, 16]) -> (out) {{\n %a: {kind} = {call}\n return %a\n}}"


def lowered(made: Program, work: Path):
    install()
    graph = lower_graph(made)
    return graph, load_text(graph.text, work)


def differences(made: Program, work: Path, seed: int = 0) -> list[float]:
    """Of every result, and of every cache's keys and values: the largest difference to the interpreter's, against the
    largest magnitude.
    """
    _, module = lowered(made, work)
    samples = Samples(seed)
    weights = {name: samples.weight(w, made.constants) for name, w in made.weights.items()}
    inputs = {}
    for node in made.forward.inputs:
        name, kind = str(node.target), type_of(node)
        given = None if isinstance(kind, PagedType) else samples.step_input(name, kind)
        inputs[name] = samples.any(name, kind) if given is None else given
    if "ancestors" in inputs:
        inputs["ancestors"] = _trees(inputs["query_starts"])
    step, caches = _repaged(module, inputs)
    got = module.forward(module.prepare(weights, "cpu"), caches, step)
    expected = run_function(made.forward, inputs, weights.__getitem__)
    pairs = [(got[name], value) for name, value in expected.items()]
    for name, pages in caches.items():
        _, there = _repaged(module, inputs)
        pairs += zip(pages, there[name], strict=True)
    return [_difference(g, e) for g, e in pairs]


def _trees(query_starts: torch.Tensor) -> torch.Tensor:
    """i32 [T, 2]: every node sees itself and, of the nodes before it, the first alone."""
    node = torch.cat([torch.arange(count) for count in query_starts.diff().tolist()])
    return torch.stack([(1 << node) | 1, torch.zeros_like(node)], -1).int()


def _repaged(module: ModuleType, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A step and caches with the module's pages, one a sequence, of what lies in pages of xllmc's size."""
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    if "query_starts" not in inputs:
        return module.Step(tensors, [], [], 1), {}
    starts, positions, table = (inputs[name].long() for name in ("query_starts", "positions", "block_table.0"))
    counts, ends = starts.diff(), starts[1:].tolist()
    owners = torch.arange(len(counts)).repeat_interleave(counts)
    tensors["block_table.0"] = torch.arange(len(counts), dtype=torch.int32)[:, None]
    tensors["slots.0"] = (owners * module.PAGE_TOKENS + positions).int()
    caches = {}
    for name, cache in inputs.items():
        if isinstance(cache, PagedCache):
            pages = [part.unflatten(0, (-1, PAGE_TOKENS))[table].flatten(1, 2) for part in (cache.keys, cache.values)]
            rest = [0, 0, 0, 0, 0, module.PAGE_TOKENS - pages[0].shape[1]]
            caches[name] = module.Pages(*(functional.pad(part, rest).contiguous() for part in pages))
    lengths = [int(positions[end - 1]) + 1 for end in ends]
    return module.Step(tensors, ends, lengths, int(counts.max())), caches


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.dtype == expected.dtype and got.shape == expected.shape
    if not expected.is_floating_point():
        return float((got != expected).any())
    assert (got.isnan() == expected.isnan()).all()
    g, e = (torch.nan_to_num(t.float(), 0.0, 1e30, -1e30) for t in (got, expected))
    return float((g - e).abs().max() / e.abs().max().clamp(min=1e-30))


def of_one_type(*ops: str, operands: Sequence[str]) -> list[tuple[str, str]]:
    return [(ROWS.format(kind="f32[T, 16]", call=f"{name}({', '.join(operands)})"), name) for name in ops]


POINTWISE = [
    *of_one_type("add", "sub", "mul", "div", "maximum", "minimum", operands=("%x", "%y")),
    *of_one_type("add", "maximum", "minimum", operands=("%x", "-1.5")),
    *of_one_type("maximum", operands=("%x", "-inf")),
    *of_one_type("neg", "abs", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "erf", operands=("%x",)),
    *of_one_type("silu", "relu", "gelu_erf", "gelu_tanh", operands=("%x",)),
    *((ROWS.format(kind="f32[T, 1]", call=f"{name}(%x)"), name) for name in ("mean", "sum", "amax")),
    (ROWS.format(kind="f32[T, 16]", call="pow(%x, exponent=3.0)"), "pow"),
    (ROWS.format(kind="bf16[T, 16]", call='cast(%x, dtype="bf16")'), "cast"),
    (ROWS.format(kind="f32[4*T, 4]", call="reshape(%x, shape=[4*T, 4])"), "reshape"),
    (ROWS.format(kind="f32[16, T]", call="permute(%x, axes=[1, 0])"), "permute"),
    (ROWS.format(kind="f32[T, 5]", call="slice(%x, axis=1, start=3, stop=8)"), "slice"),
    (ROWS.format(kind="f32[T, 48]", call="concat(%x, %y, %x, axis=1)"), "concat"),
]


@pytest.mark.parametrize(("function", "name"), POINTWISE)
def test_pointwise_ops_reductions_and_moves_have_the_references_bits(function, name, tmp_path: Path):
    assert differences(program(function), tmp_path) == [0.0], name


NORMS = {
    "rms_norm": "%a: {t}[T, 16] = rms_norm(%x, @w, eps=0.001)\n return %a",
    "layer_norm": "%a: {t}[T, 16] = layer_norm(%x, @w, @b, eps=0.001)\n return %a",
    "add_rms_norm": "%n: ({t}[T, 16], {t}[T, 16]) = add_rms_norm(%x, %y, @w, eps=0.001)\n "
    "%a: {t}[T, 16] = get(%n, index=0)\n %b: {t}[T, 16] = get(%n, index=1)\n return %a, %b",
    "add_layer_norm": "%n: ({t}[T, 16], {t}[T, 16]) = add_layer_norm(%x, %y, @w, @b, eps=0.001)\n "
    "%a: {t}[T, 16] = get(%n, index=0)\n %b: {t}[T, 16] = get(%n, index=1)\n return %a, %b",
}


@pytest.mark.parametrize("weights", ["f32", "bf16"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", NORMS)
def test_norms_hold_near_zero_where_epsilon_counts(name, dtype, weights, tmp_path: Path):
    if weights == "bf16" and dtype == "f32":
        weights = "f32"
    names = "a, b" if name.startswith("add") else "a"
    body = NORMS[name].format(t=dtype)
    made = program(
        f"func forward(%x: {dtype}[T, 16], %y: {dtype}[T, 16]) -> ({names}) {{\n {body}\n}}",
        ["w [16]", "b [16]"],
        weights,
    )
    bound = 1e-6 if dtype == "f32" else 2**-8
    assert max(differences(made, tmp_path)) <= bound


LINEARS = {
    "plain": ("%a: f32[T, 24] = linear(%x, @w, none)", ["w [24, 16]"]),
    "bias and activation": ('%a: f32[T, 24] = linear(%x, @w, @b, activation="gelu_erf")', ["w [24, 16]", "b [24]"]),
    "gated, with padding": ('%a: f32[T, 20] = linear(%x, @w, none, activation="silu", gated=20)', ["w [64, 16]"]),
    "another gate": ('%a: f32[T, 20] = linear(%x, @w, none, activation="sigmoid", gated=20)', ["w [64, 16]"]),
    "narrower": ('%a: bf16[T, 24] = linear(%x, @w, none, out_dtype="bf16")', ["w [24, 16]"]),
    "epilogue": (
        "%a: bf16[T, 16] = linear(%x, @w, none, %y, epilogue=(%0: f32[T, 16], %1: f32[T, 16]) "
        "{ %2: f32[T, 16] = tanh(%0); %3: f32[T, 16] = mul(%2, %1); "
        '%4: bf16[T, 16] = cast(%3, dtype="bf16"); return %4 })',
        ["w [16, 16]"],
    ),
    "gated epilogue": (
        '%a: f32[T, 16] = linear(%x, @w, none, %y, activation="silu", gated=16, '
        "epilogue=(%0: f32[T, 16], %1: f32[T, 16]) { %2: f32[T, 16] = add(%0, %1); return %2 })",
        ["w [32, 16]"],
    ),
}


@pytest.mark.parametrize("name", LINEARS)
def test_linears_with_all_they_may_have(name, tmp_path: Path):
    line, weights = LINEARS[name]
    kind = line.split(": ")[1].split("]")[0] + "]"
    function = f"func forward(%x: f32[T, 16], %y: f32[T, 16]) -> (a) {{\n {line}\n return %a\n}}"
    assert max(differences(program(function, weights), tmp_path)) <= (2**-8 if kind.startswith("bf16") else 1e-6)


def test_an_embedding_with_an_epilogue(tmp_path: Path):
    function = (
        "func forward(%token_ids: i32[T]) -> (a) {\n %a: f32[T, 16] = embedding(@w, %token_ids, "
        "epilogue=(%0: f32[T, 16]) { %1: f32[T, 16] = mul(%0, 4.0); return %1 })\n return %a\n}"
    )
    assert differences(program(function, ["w [64, 16]"]), tmp_path) == [0.0]


def test_a_loop_of_several_results(tmp_path: Path):
    function = (
        "func forward(%x: f32[T, 16], %y: f32[T, 16]) -> (a, b) {\n"
        " %l: (f32[T, 16], f32[T, 1]) = loop(%x, %y, body=(%0: f32[T, 16], %1: f32[T, 16]) "
        "{ %2: f32[T, 16] = mul(%0, %1); %3: f32[T, 1] = sum(%2); return %2, %3 })\n"
        " %a: f32[T, 16] = get(%l, index=0)\n %b: f32[T, 1] = get(%l, index=1)\n return %a, %b\n}"
    )
    assert differences(program(function), tmp_path) == [0.0, 0.0]


STEP = (
    "%positions: i32[T], %query_starts: i32[S+1], %slots.0: i32[T], %block_table.0: i32[S, B], "
    "%kv.0: paged<0>{t}[2, 16, 16]"
)


@pytest.mark.parametrize(("scale", "plain"), [(1.0, False), (1.25, True)])
@pytest.mark.parametrize("width", [8, 16])
def test_rotations_of_a_part_of_the_head_and_of_scaled_tables(scale, plain, width, tmp_path: Path):
    function = (
        f"func forward(%positions: i32[T], %q: f32[T, 3, 16]) -> (a) {{\n"
        f" %t: f32[T, {width}] = rope_table(%positions, @inv, scale={scale})\n"
        " %a: f32[T, 3, 16] = rope(%q, %t)\n return %a\n}"
    )
    made = program(function, [f"inv [{width // 2}]"])
    graph, _ = lowered(made, tmp_path)
    assert ("npu_rotary_mul" in graph.operators) is not plain and bool(graph.plain) is plain
    assert max(differences(made, tmp_path)) <= 1e-6


@pytest.mark.parametrize("norm", ["@qn, @kn", "none, none"])
@pytest.mark.parametrize("table", ["%t", "none"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_queries_keys_and_values_from_one_projection(norm, table, dtype, tmp_path: Path):
    function = (
        f"func forward(%qkv: {dtype}[T, 128], {STEP.format(t=dtype)}) -> (a) {{\n"
        " %t: f32[T, 16] = rope_table(%positions, @inv, scale=1.0)\n"
        f" %w: ({dtype}[T, 4, 16], paged<0>{dtype}[2, 16, 16]) = "
        f"qkv_write(%qkv, {table}, {norm}, %kv.0, %slots.0, heads=4, eps=0.01)\n"
        f" %a: {dtype}[T, 4, 16] = get(%w, index=0)\n return %a\n}}"
    )
    made = program(function, ["inv [8]", "qn [16]", "kn [16]"])
    assert len(found := differences(made, tmp_path)) == 3  # queries, and what lies in both caches
    assert max(found) <= (1e-6 if dtype == "f32" else 2**-8)


@pytest.mark.parametrize(
    ("dtype", "options", "fused"),
    [
        ("f16", "", True),
        ("bf16", "", True),
        ("bf16", ", window=4", False),
        ("bf16", ", softcap=3.0", False),
        ("f32", ", window=4, softcap=3.0", False),
        ("f32", "", False),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_attention_after_a_write_of_its_keys(dtype, options, fused, seed, tmp_path: Path):
    function = (
        f"func forward(%q: {dtype}[T, 4, 16], %k: {dtype}[T, 2, 16], %v: {dtype}[T, 2, 16], "
        f"{STEP.format(t=dtype)}) -> (a) {{\n"
        f" %w: paged<0>{dtype}[2, 16, 16] = kv_write(%kv.0, %k, %v, %slots.0)\n"
        f" %a: {dtype}[T, 4, 16] = "
        f"paged_attention(%q, %w, %block_table.0, %query_starts, %positions, scale=0.25{options})\n"
        " return %a\n}"
    )
    made = program(function)
    graph, _ = lowered(made, tmp_path)
    assert ("npu_fused_infer_attention_score" in graph.operators) is fused
    assert max(differences(made, tmp_path, seed)) <= {"f32": 1e-6, "bf16": 2**-8, "f16": 2**-11}[dtype]


@pytest.mark.parametrize("options", ["", ", window=4", ", window=20, softcap=3.0"])
@pytest.mark.parametrize("seed", [0, 1])
def test_attention_of_trees(options, seed, tmp_path: Path):
    function = (
        "func forward(%q: f32[T, 4, 16], %k: f32[T, 2, 16], %v: f32[T, 2, 16], "
        f"{STEP.format(t='f32')}, %ancestors: i32[T, 2]) -> (a) {{\n"
        " %w: paged<0>f32[2, 16, 16] = kv_write(%kv.0, %k, %v, %slots.0)\n"
        " %a: f32[T, 4, 16] = paged_attention(%q, %w, %block_table.0, %query_starts, %positions, %ancestors, "
        f"scale=0.25{options})\n return %a\n}}"
    )
    made = program(function)
    graph, _ = lowered(made, tmp_path)
    assert list(graph.plain) == ["paged_attention: the operator knows trees in latent attention alone"]
    assert max(differences(made, tmp_path, seed)) <= 1e-6


def test_every_op_that_a_model_may_have_is_written():
    assert {name for name, each in OPS.items() if "npu" not in each.kernels and name not in LOOSE} == {"sample"}


def test_no_op_is_kept_out_of_loops_by_a_provider():
    assert not [name for name, each in OPS.items() if each.traits.pointwise and "npu" in each.kernels]


def test_text_of_a_config_does_not_become_code(tmp_path: Path):
    made = program(POINTWISE[0][0])
    hostile = made.facts.model_copy(update={"architecture": 'X"""\nraise SystemExit\n"""'})
    _, module = lowered(replace(made, facts=hostile), tmp_path)
    assert "raise SystemExit" in module.__doc__


def test_variables_hide_nothing_that_statements_read(tmp_path: Path):
    names = ("halves", "torch", "npu", "step", "sum", "weights", "lambda")
    lines = [f"%{name}: f32[T, 16] = add(%x, 1.0)" for name in names]
    function = "func forward(%x: f32[T, 16]) -> (a) {\n " + "\n ".join(lines) + "\n return %lambda\n}"
    assert differences(program(function), tmp_path) == [0.0]


@pytest.fixture
def strange():
    made = op("strange")(lambda x: x)
    made.fake(lambda x: x)
    yield made
    del OPS["strange"]


STRANGE = "func forward(%x: f32[T, 16]) -> (a) {\n %a: f32[T, 16] = strange(%x)  // model.odd\n return %a\n}"


def test_an_op_that_nothing_writes_is_named(strange):
    with pytest.raises(XllmcError, match=r'nothing writes op strange \(model.odd\).*kernel\("npu"\)'):
        lower_graph(program(STRANGE))


def test_a_new_op_costs_one_function(strange, tmp_path: Path):
    @strange.kernel("npu")
    def _(call: NpuCall) -> None:
        call.give(call.operator("npu_swiglu", Value(f"torch.cat([{call.tensor(0)}] * 2, -1)"), dim=-1))

    graph, module = lowered(program(STRANGE), tmp_path)
    x = torch.randn(3, 16)
    (out,) = module.forward({}, {}, module.Step({"x": x}, [], [], 1)).values()
    assert graph.operators == {"npu_swiglu": 1}
    torch.testing.assert_close(out, torch.nn.functional.silu(x) * x)


def test_a_provider_that_calls_wrongly_is_refused_while_lowering(strange):
    @strange.kernel("npu")
    def _(call: NpuCall) -> None:
        call.give(call.operator("npu_rms_norm", call.tensor(0), call.tensor(0)))

    with pytest.raises(XllmcError, match="npu_rms_norm of torch_npu has 2 results, and strange takes 1"):
        lower_graph(program(STRANGE))


def test_a_provider_that_fails_is_named(strange):
    @strange.kernel("npu")
    def _(call: NpuCall) -> None:
        call.tensor(5)

    with pytest.raises(XllmcError, match=r"cannot write a \(model.odd\) for torch_npu: IndexError"):
        lower_graph(program(STRANGE))
