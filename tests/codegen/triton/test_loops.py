"""Generated loops and copies on the interpreter compute what their ops mean, for every op, shape and dtype."""

from pathlib import Path

import pytest
import torch
from xllmc.compiler.check.compare import relative_error
from xllmc.compiler.ir.interpret import run_function
from xllmc.runtime.artifact.errors import XllmcError

from tests.chains import CHAINS, EXACT, WEIGHT, chain_inputs, chain_program
from tests.codegen.triton.checking import check_program
from tests.codegen.triton.interpreted import Interpreted
from tests.codegen.triton.lowered_stage import for_device
from tests.programs import program

TOKENS = 5
INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> Interpreted:
    return Interpreted(for_device(chain_program()), {"w": WEIGHT}, tmp_path_factory.mktemp("loops"))


@pytest.fixture(scope="module")
def computed(device) -> dict[str, torch.Tensor]:
    return device(chain_inputs(TOKENS), {"T": TOKENS}, {"T": 9})


@pytest.fixture(scope="module")
def expected(device) -> dict[str, torch.Tensor]:
    return run_function(device.program.forward, chain_inputs(TOKENS), lambda name: WEIGHT)


@pytest.mark.parametrize("name", CHAINS)
def test_a_generated_kernel_computes_its_ops(name, computed, expected):
    allowed = 2**-8 if computed[name].dtype == torch.bfloat16 else 2e-6
    assert relative_error(expected[name], computed[name]) <= (0.0 if name in EXACT else allowed)


def test_a_row_does_not_depend_on_the_others(device, computed):
    for name, value in device(chain_inputs(2), {"T": 2}).items():
        raw, whole = value.view(torch.uint8), computed[name][:2].contiguous().view(torch.uint8)
        assert torch.equal(raw, whole), name


def check(lines: list[str], inputs: str, results: list[str], work: Path, weights: tuple[str, ...] = (), **options):
    body = "\n".join(lines)
    head = f"func forward({inputs}) -> ({', '.join(f'r{i}' for i in range(len(results)))})"
    made = program(f"{head} {{\n{body}\nreturn {', '.join(results)}\n}}", weights)
    return check_program(for_device(made), work, **options)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("length", [300, 9001], ids=["in two blocks", "walked in blocks"])
def test_long_rows(length, dtype, tmp_path):
    wide, row, joined = f"{dtype}[T, {length}]", f"{dtype}[T, 1]", f"{dtype}[T, {length + 101}]"
    lines = [
        f"%m: {row} = amax(%x)",
        f"%d: {wide} = sub(%x, %m)",
        f"%e: {wide} = exp(%d)",
        f"%s: {row} = sum(%e)",
        f"%y: {wide} = div(%e, %s)",
        f"%c: {joined} = concat(%x, %r, %z, axis=1)",
        f"%n: {joined} = neg(%c)",
        f"%o: {row} = mean(%n)",
        f"%k: {row} = sigmoid(%o)",
        f"%v: {joined} = mul(%n, %k)",
    ]
    inputs = f"%x: {wide}, %r: {row}, %z: {dtype}[T, 100]"
    check(lines, inputs, ["%y", "%v", "%k"], tmp_path, tokens=2, captured=3)


@pytest.mark.parametrize(("outer", "inner"), [(2, 4), (4, 8), (3, 2), (2, 5)])
def test_axes_that_broadcast(outer, inner, tmp_path):
    kind = f"f32[T, {outer}, {inner}, 19]"
    operands = {
        "a": f"f32[T, 1, {inner}, 19]",
        "b": f"f32[T, {outer}, 1, 19]",
        "c": f"f32[{outer}, 1, 19]",
        "d": f"f32[{inner}, 19]",
        "e": f"f32[T, {outer}, 1, 1]",
        "f": f"f32[{inner}, 1]",
        "g": "f32[1]",
    }
    lines, last = [], "%x"
    for name in operands:
        lines.append(f"%{name}.y: {kind} = {'add' if name in 'bdf' else 'mul'}({last}, %{name})")
        last = f"%{name}.y"
    inputs = ", ".join([f"%x: {kind}", *(f"%{name}: {own}" for name, own in operands.items())])
    check(lines, inputs, [last], tmp_path, tokens=3, captured=11)


@pytest.mark.parametrize("width", [1024, 3000])
def test_long_rows_without_reductions_are_shared_by_programs(width, tmp_path):
    lines = [
        f"%t: f32[T, {width}] = tanh(%x)",
        f"%y: f32[T, {width}] = mul(%t, @w)",
        "%s: f32[T, 900] = slice(%t, axis=1, start=100, stop=1000)",
        "%u: f32[T, 900] = mul(%s, %r)",
        "%v: f32[T, 1] = neg(%r)",
    ]
    inputs = f"%x: f32[T, {width}], %r: f32[T, 1]"
    check(lines, inputs, ["%y", "%u", "%v"], tmp_path, (f"w [{width}]",), tokens=2, captured=3)


def test_integers_stay_whole(tmp_path):
    lines = [
        "%a: i32[T, 5] = add(%p, 2)",
        "%b: i32[T, 5] = mul(%a, %p)",
        "%c: i32[T, 5] = minimum(%b, 7)",
        "%d: i32[T, 5] = maximum(%c, %q)",
        "%e: i32[T, 5] = neg(%d)",
        "%f: i32[T, 5] = abs(%e)",
        "%g: f32[T, 5] = cast(%f, dtype=\"f32\")",
        "%h: f32[T, 5] = mul(%g, 0.3)",
        "%i: i32[T, 5] = cast(%h, dtype=\"i32\")",
        "%j: f16[T, 5] = cast(%i, dtype=\"f16\")",
    ]  # fmt: skip
    large = torch.tensor([[2**30 + 1, -(2**30) - 7, 5, 0, -5]], dtype=torch.int32)
    values = {"p": large, "q": large.flip(1)}
    check(lines, "%p: i32[T, 5], %q: i32[T, 5]", ["%f", "%i", "%j"], tmp_path, tokens=1, captured=4, values=values)


def test_what_is_no_number_is_passed_on(tmp_path):
    lines = [
        "%a: f32[T, 1] = amax(%x)",
        "%b: f32[T, 5] = maximum(%x, 0.5)",
        "%c: f32[T, 5] = minimum(%x, %z)",
        "%d: f32[T, 5] = relu(%x)",
    ]
    x = torch.tensor([[1, NAN, 3, -INF, INF], [-INF, -INF, -INF, -INF, -INF], [1, 2, 3, 4, 5]])
    z = torch.tensor([[1, 1, NAN, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, NAN]])
    found = check(lines, "%x: f32[T, 5], %z: f32[T, 5]", ["%a", "%b", "%c", "%d"], tmp_path, values={"x": x, "z": z})
    assert found["r0"][0].isnan() and found["r0"][1] == -INF
    for name, wanted in [("r1", x.maximum(torch.tensor(0.5))), ("r2", x.minimum(z)), ("r3", x.relu())]:
        assert torch.equal(found[name].isnan(), wanted.isnan()), name


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_narrow_arithmetic_rounds_after_every_op(dtype, tmp_path):
    kind = f"{dtype}[T, 40]"
    body = f"%1: {kind} = add(%0, 0.3); %2: {kind} = mul(%1, %0); %3: {kind} = maximum(%2, 0.1); "
    body += f"%4: {kind} = sub(%3, %1); %5: {dtype}[T, 1] = sum(%4); %6: {kind} = mul(%0, %5); return %4, %6"
    made = program(
        f"func forward(%x: {kind}) -> (a, b) {{\n%y: ({kind}, {kind}) = loop(%x, body=(%0: {kind}) {{ {body} }})\n"
        f"%a: {kind} = get(%y, index=0)\n%b: {kind} = get(%y, index=1)\nreturn %a, %b\n}}"
    )
    check_program(made, tmp_path, bounds={dtype: 0.0})


ACROSS = "%y: f32[4, 1] = loop(%x, body=(%0: f32[4, T]) { %1: f32[4, 1] = sum(%0); return %1 })"


@pytest.mark.parametrize(
    ("inputs", "lines", "said"),
    [
        ("%x: f32[T, 4]", ['%y: f64[T, 4] = cast(%x, dtype="f64")'], "casts not to f64"),
        ("%x: i32[T, 4]", ["%y: i32[T, 4] = add(%x, 0.5)"], "whole numbers"),
        ("%x: i32[T, 4]", ["%y: i32[T, 4] = exp(%x)"], "not exp in i32"),
        ("%x: i32[T, 4]", ["%y: i32[T, 1] = amax(%x)"], "reduces floats"),
        ("%x: f32[4, T]", [ACROSS], "goes across rows"),
        ("%x: f32[T, 4]", ["%y: f32[4, T] = permute(%x, axes=[1, 0])"], "moves the token axis"),
    ],
)
def test_what_no_loop_can_do_is_refused_in_words(inputs, lines, said, tmp_path):
    with pytest.raises(XllmcError, match=said):
        check(lines, inputs, ["%y"], tmp_path)
