"""A device kernel of a plugin is interpreted before an engine is made of it: what is wrong stops the compile."""

from pathlib import Path

import pytest
from torch import fx
from xllmc.codegen.triton import kernel_check
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.cuda import CudaTarget
from xllmc.codegen.triton.kernel import Config, TritonCall, axis, width
from xllmc.codegen.triton.kernel_check import check_brought
from xllmc.compiler.ir.dims import symbol
from xllmc.compiler.ir.op import Op, Traits
from xllmc.compiler.ir.program import Function, Program, emit
from xllmc.compiler.ir.types import TensorType
from xllmc.compiler.target import BuildOptions
from xllmc.runtime.artifact.errors import XllmcError

from tests.programs import program

RIGHT = """
@triton.jit
{{ signature }}
    row = tl.program_id(0)
    if row < {{ rows }}:
        column = tl.arange(0, {{ BLOCK }})
        inside = column < {{ width }}
        value = tl.load(x + row * {{ width }} + column, inside)
        tl.store(y + row * {{ width }} + column, (value.to(tl.float32) * 3.0).to(y.dtype.element_ty), inside)
"""
FAULTS = {
    "another factor": ("* 3.0", "* 3.01", "does not compute what the op's reference does"),
    "one row only": ("if row < {{ rows }}", "if row < 1", "does not compute"),
    "rows that are not there": (
        "if row < {{ rows }}",
        "if row < {{ rows }} + 1",
        "writes beyond its results|not its own",
    ),
    "no mask": ("column, inside)\n", "column)\n", "touches memory that is not its own"),
    "no end": (
        "    row = tl.program_id(0)",
        "    row = tl.program_id(0)\n    while row < 1000:\n        row = row * 1",
        "not end",
    ),
    "no kernel": ("tl.load(", "tl.lode(", "fails in Triton's interpreter"),
}


def made(template: str, dtype: str = "f32", invariant: str | None = None) -> Program:
    """A program of one call of an op whose kernel is this template, or another one in batch-invariant mode."""
    op = Op("triple", lambda x: x * 3.0, Traits(rowwise=True), {"f32": 1e-6, "bf16": 2**-7}, infer=lambda x: x)

    @op.kernel("triton")
    def _(call: TritonCall) -> None:
        (x,) = call.node.args
        rows = call.rows(x)
        operands = {"x": call.value(x), "y": call.result()}
        config = Config({"BLOCK": 64}, warps=1)
        text = invariant if call.invariant and invariant else template
        call.launch("triple", text, operands, (axis(rows),), config, rows=call.count(rows), width=width(x))

    one = program(f"func forward(%x: {dtype}[T, 37]) -> (y) {{\n %y: {dtype}[T, 37] = neg(%x)\n return %y\n}}")
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.target = "x"
    x.meta.update(type=TensorType(dtype, (symbol("T"), 37)), where="")
    graph.output((emit(graph, op, x),))
    one.functions["forward"] = Function("forward", graph, ("y",))
    return one


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_right_kernel_is_run_and_taken(dtype: str, tmp_path: Path):
    said: list[str] = []
    bundle = CudaTarget("sm_90").emit(made(RIGHT, dtype), BuildOptions(), tmp_path, said.append)
    assert "interpreting triple" in said
    assert [kernel.name[:10] for kernel in bundle.plan.device_kernels] == ["xk_triple_"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_stops_the_compile(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel_check, "TIME_LIMIT", 8 if fault == "no end" else 60)
    right, wrong, message = FAULTS[fault]
    assert right in RIGHT
    with pytest.raises(XllmcError, match=f"the Triton kernel of op triple .*({message})"):
        check_brought(made(RIGHT.replace(right, wrong, 1)), ARCHITECTURES["sm_90"], tmp_path, lambda what: None)


def test_what_is_run_is_what_the_engine_will_have(tmp_path: Path):
    one = made(RIGHT, invariant=RIGHT.replace("* 3.0", "* 3.01"))
    machine = ARCHITECTURES["sm_90"]
    (tmp_path / "usual").mkdir()
    check_brought(one, machine, tmp_path / "usual", lambda what: None)
    with pytest.raises(XllmcError, match="does not compute what the op's reference does"):
        check_brought(one, machine, tmp_path, lambda what: None, invariant=True)


def test_kernels_of_our_own_are_not_run(tmp_path: Path):
    text = "func forward(%x: f32[T, 64]) -> (y) {\n  %y: f32[T, 64] = rms_norm(%x, @w, eps=1e-06)\n  return %y\n}"
    said: list[str] = []
    check_brought(program(text, ["w [64]"]), ARCHITECTURES["sm_90"], tmp_path, said.append)
    assert not said
