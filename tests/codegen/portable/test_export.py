"""Every op can be traced in its portable form, and gives at other sizes what its reference gives."""

import operator

import numpy as np
import pytest
import torch
from xllmc.codegen.portable.export import TRACED, export
from xllmc.codegen.portable.form import FORMS, form_of, portable, portable_graph
from xllmc.codegen.portable.signature import signature
from xllmc.codegen.portable.step import Step
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.ir.dims import Dim, evaluate
from xllmc.compiler.ir.interpret import run_function
from xllmc.compiler.ops import OPS
from xllmc.compiler.ops.attention import PagedCache
from xllmc.runtime.artifact.errors import XllmcError

from tests.programs import program

ROWS = "func forward(%x: f32[T, 8], %y: f32[T, 8]) -> ({results}) {{\n{body}\nreturn {values}\n}}"
UNARY = ("neg", "exp", "sin", "cos", "tanh", "sigmoid", "erf", "silu", "relu", "gelu_erf", "gelu_tanh", "abs")
POSITIVE = ("log", "sqrt", "rsqrt")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")


def rows_program(lines: dict[str, str]) -> str:
    """A function of f32[T, 8] ``x`` and ``y`` that returns the values of ``lines``: name to right-hand side."""
    body = "\n".join(f"%{name}: {text}" for name, text in lines.items())
    names = [name for name in lines if not name.startswith("hidden")]
    return ROWS.format(results=", ".join(names), body=body, values=", ".join(f"%{n}" for n in names))


POINTWISE = rows_program(
    {f"u_{o}": f"f32[T, 8] = {o}(%x)" for o in UNARY}
    | {"hidden": "f32[T, 8] = abs(%y)"}
    | {f"p_{o}": f"f32[T, 8] = {o}(%hidden)" for o in POSITIVE}
    | {f"b_{o}": f"f32[T, 8] = {o}(%x, %y)" for o in BINARY}
    | {f"n_{o}": f"f32[T, 8] = {o}(%x, 1.5)" for o in BINARY}
    | {"power": "f32[T, 8] = pow(%x, exponent=3.0)", "cast": 'bf16[T, 8] = cast(%x, dtype="bf16")'}
)
MOVES = rows_program(
    {f"r_{o}": f"f32[T, 1] = {o}(%x)" for o in ("mean", "sum", "amax")}
    | {
        "shaped": "f32[T, 2, 4] = reshape(%x, shape=[T, 2, 4])",
        "turned": "f32[2, T, 4] = permute(%shaped, axes=[1, 0, 2])",
        "part": "f32[T, 3] = slice(%x, axis=1, start=2, stop=5)",
        "joined": "f32[T, 11] = concat(%x, %part, axis=1)",
    }
)
NORMS = """func forward(%x: f32[T, 8], %y: f32[T, 8]) -> (a, b, c, d, e, f) {
  %a: f32[T, 8] = rms_norm(%x, @w, eps=1e-06)
  %b: f32[T, 8] = layer_norm(%x, @w, @v, eps=1e-06)
  %s: (f32[T, 8], f32[T, 8]) = add_rms_norm(%x, %y, @w, eps=1e-06)
  %c: f32[T, 8] = get(%s, index=0)
  %d: f32[T, 8] = get(%s, index=1)
  %t: (f32[T, 8], f32[T, 8]) = add_layer_norm(%x, %y, @w, @v, eps=1e-06)
  %e: f32[T, 8] = get(%t, index=0)
  %f: f32[T, 8] = get(%t, index=1)
  return %a, %b, %c, %d, %e, %f
}"""
PRODUCTS = """func forward(%x: f32[T, 8], %y: f32[T, 8], %ids: i32[T], %logit_rows: i32[R]) -> (a, b, c, d, e, f, g) {
  %a: f32[T, 12] = linear(%x, @m, none)
  %b: f32[T, 12] = linear(%x, @m, @bias, activation="gelu_tanh")
  %c: f32[T, 5] = linear(%x, @gated, none, activation="silu", gated=5)
  %d: f32[T, 8] = linear(%x, @q, none, %y, epilogue=(%0: f32[T, 8], %1: f32[T, 8]) { \
%2: f32[T, 8] = tanh(%0); %3: f32[T, 8] = add(%2, %1); return %3 })
  %e: f32[T, 8] = embedding(@table, %ids, epilogue=(%0: f32[T, 8]) { %1: f32[T, 8] = mul(%0, 3.0); return %1 })
  %f: f32[R, 8] = take_rows(%x, %logit_rows)
  %l: (f32[T, 8], f32[T, 1]) = loop(%x, %y, body=(%0: f32[T, 8], %1: f32[T, 8]) { \
%2: f32[T, 8] = tanh(%0); %3: f32[T, 8] = mul(%2, %1); %4: f32[T, 1] = amax(%3); return %3, %4 })
  %g: f32[T, 1] = get(%l, index=1)
  return %a, %b, %c, %d, %e, %f, %g
}"""
WEIGHTS = ("w [8]", "v [8]", "m [12, 8]", "bias [12]", "gated [32, 8]", "q [8, 8]", "table [20, 8]", "inv [2]")
CACHED = """func forward(%x: f32[T, 8], %positions: i32[T], %query_starts: i32[S+1], %slots.0: i32[T], \
%block_table.0: i32[S, B], %kv.0: paged<0>f32[1, 4, 4], %kv.1: paged<0>f32[1, 4, 4]) -> (a, b, c) {
  %t: f32[T, 4] = rope_table(%positions, @inv, scale=1.0)
  %p: f32[T, 16] = concat(%x, %x, axis=1)
  %s: (f32[T, 2, 4], paged<0>f32[1, 4, 4]) = qkv_write(%p, %t, none, none, %kv.0, %slots.0, heads=2)
  %q: f32[T, 2, 4] = get(%s, index=0)
  %k: paged<0>f32[1, 4, 4] = get(%s, index=1)
  %a: f32[T, 2, 4] = paged_attention(%q, %k, %block_table.0, %query_starts, %positions, scale=0.5, window=3)
  %b: f32[T, 2, 4] = rope(%q, %t)
  %h: f32[T, 2, 4] = reshape(%x, shape=[T, 2, 4])
  %i: f32[T, 1, 4] = slice(%h, axis=1, start=0, stop=1)
  %j: f32[T, 1, 4] = slice(%h, axis=1, start=1, stop=2)
  %u: paged<0>f32[1, 4, 4] = kv_write(%kv.1, %i, %j, %slots.0)
  %c: f32[T, 2, 4] = paged_attention(%b, %u, %block_table.0, %query_starts, %positions, scale=0.5, softcap=2.0)
  return %a, %b, %c
}"""
TREES = """func forward(%q: f32[T, 2, 4], %positions: i32[T], %query_starts: i32[S+1], %block_table.0: i32[S, B], \
%ancestors: i32[T, 2], %kv.0: paged<0>f32[1, 4, 4]) -> (a) {
  %a: f32[T, 2, 4] = paged_attention(%q, %kv.0, %block_table.0, %query_starts, %positions, %ancestors, scale=0.5)
  return %a
}"""
SCORED = """func forward(%x: f32[R, 9], %targets: i32[R]) -> (a) {
  %a: f32[R] = token_logprob(%x, %targets)
  return %a
}"""
PROGRAMS = {name: globals()[name] for name in ("POINTWISE", "MOVES", "NORMS", "PRODUCTS", "CACHED", "TREES", "SCORED")}

SMALL = {"T": 1, "S": 1, "S+1": 2, "R": 1, "B": 1, "slots_0": 64}
LARGER = {"T": 6, "S": 2, "S+1": 3, "R": 2, "B": 2, "slots_0": 160}
STEPS = {
    1: {
        "positions": [0],
        "query_starts": [0, 1],
        "slots.0": [40],
        "block_table.0": [[1]],
        "ancestors": [[1, 0]],
    },
    6: {
        "positions": [0, 1, 30, 31, 32, 33],
        "query_starts": [0, 2, 6],
        "slots.0": [64, 65, 126, 127, 32, 33],
        "block_table.0": [[2, -1], [3, 1]],
        "ancestors": [[1, 0], [3, 0], [1, 0], [-1, 0], [5, 0], [9, 0]],
    },
}


def operands(made, sizes: dict[str, int]) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(sizes["T"])
    given = {}
    for argument in signature(made).arguments:
        shape = [evaluate(s, sizes) for s in argument.type.shape]
        known = STEPS[sizes["T"]].get(argument.name)
        if argument.type.dtype == "i32":
            values = np.zeros(shape) if known is None else np.array(known)
            given[argument.name] = torch.from_numpy(values.astype(np.int32))
        else:
            given[argument.name] = torch.from_numpy(rng.standard_normal(shape, np.float32))
    return given


@pytest.mark.parametrize("name", PROGRAMS)
def test_exported_ops_agree_with_their_references_at_sizes_never_traced(name):
    made = program(PROGRAMS[name], [w for w in WEIGHTS if f"@{w.split()[0]}" in PROGRAMS[name]])
    exported = export(made).program
    for sizes in (SMALL, LARGER):
        given = operands(made, sizes)
        before = {key: value.clone() for key, value in given.items()}
        results = exported.module()(*given.values())
        assert all(torch.equal(given[key], value) for key, value in before.items()), "an argument was changed"
        states = {s: PagedCache(given[f"{s}.keys"], given[f"{s}.values"]) for s in made.states}
        expected = run_function(made.forward, given | states, given.__getitem__)
        expected |= {f"next.{s}.{p}": getattr(c, p) for s, c in states.items() for p in ("keys", "values")}
        names = [r.name for r in signature(made).results]
        for key, result in zip(names, results, strict=True):
            assert relative_error(expected[key], result) < 1e-5, key


def test_every_op_but_the_sampler_is_among_them():
    own = {name for name, op in OPS.items() if op.infer and op.infer.__module__.startswith("xllmc.compiler.ops.")}
    used = {n.target.name for text in PROGRAMS.values() for n in program(text, WEIGHTS).forward.calls}
    assert own - used - {"sample"} == set()


def test_sizes_stay_open():
    exported = export(program(CACHED, ["inv [2]"]))
    placeholders = [n for n in exported.program.graph.nodes if n.op == "placeholder"]
    for node, argument in zip(placeholders, exported.signature.arguments, strict=True):
        open_sizes = [not isinstance(s, int) for s in node.meta["val"].shape]
        assert open_sizes == [isinstance(s, Dim) for s in argument.type.shape], argument.name
    assert TRACED["S+1"] == TRACED["S"] + 1


@pytest.mark.parametrize("read", [True, False])
def test_a_state_is_returned_as_it_is_left_though_nobody_reads_it(read):
    get = "%g: paged<0>f32[1, 4, 4] = get(%s, index=1)" if read else ""
    made = program(
        f"""func forward(%x: f32[T, 16], %slots.0: i32[T], %kv.0: paged<0>f32[1, 4, 4]) -> (q) {{
  %s: (f32[T, 2, 4], paged<0>f32[1, 4, 4]) = qkv_write(%x, none, none, none, %kv.0, %slots.0, heads=2)
  %q: f32[T, 2, 4] = get(%s, index=0)
  {get}
  return %q
}}"""
    )
    x, keys = torch.arange(16.0)[None], torch.zeros(32, 1, 4)
    _, after, values = Step(made)(x, torch.tensor([5], dtype=torch.int32), keys, torch.zeros(32, 1, 4))
    assert torch.equal(after[5, 0], x[0, 8:12]) and torch.equal(values[5, 0], x[0, 12:]) and not keys.any()
    assert [r.name for r in signature(made).results] == ["q", "next.kv.0.keys", "next.kv.0.values"]


def test_a_form_is_used_in_loops_and_epilogues_too(monkeypatch):
    made = program(PRODUCTS, WEIGHTS)
    monkeypatch.setitem(FORMS, "tanh", operator.neg)
    forms = {n.name: n for n in portable_graph(made.forward.graph).nodes}
    inner = [forms[name].kwargs[key].graph for name, key in (("d", "epilogue"), ("l", "body"))]
    assert [operator.neg in [n.target for n in graph.nodes] for graph in inner] == [True, True]
    assert form_of(OPS["exp"]) is OPS["exp"].reference


def test_two_forms_of_one_op_are_an_error():
    with pytest.raises(ValueError, match="two portable forms"):
        portable("paged_attention")(print)


def test_an_op_that_cannot_be_traced_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setitem(FORMS, "tanh", lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(XllmcError, match=r"cannot be exported: .*; an op whose reference cannot be traced needs a"):
        export(program(rows_program({"a": "f32[T, 8] = tanh(%x)"})))
