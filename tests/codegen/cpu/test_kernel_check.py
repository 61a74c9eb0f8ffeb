"""A kernel that a plugin brings is run before an engine is made of it: whatever is wrong with it stops the compile."""

from collections.abc import Callable

import pytest
import torch
from torch import fx
from xllmc.codegen.cpu.kernel import KernelCall, width
from xllmc.codegen.cpu.target import CpuTarget
from xllmc.compiler.ir.dims import symbol
from xllmc.compiler.ir.op import Op, Traits
from xllmc.compiler.ir.program import Function, Program, emit
from xllmc.compiler.ir.types import TensorType
from xllmc.compiler.target import BuildOptions
from xllmc.runtime.artifact.errors import XllmcError

from tests.programs import program

RIGHT = """
for (auto [row, end] = share(*worker, {{ rows }}); row < end; row++)
    for (int i = 0; i < {{ width }}; i += lanes) {
        const int n = {{ width }} - i < lanes ? {{ width }} - i : lanes;
        store_some({{ y }} + row * {{ width }} + i, load_some({{ x }} + row * {{ width }} + i, n) * set1(3.0f), n);
    }
"""
FAULTS = {
    "another factor": ("set1(3.0f)", "set1(3.001f)", "does not compute what the op's reference does"),
    "one row only": ("share(*worker, {{ rows }})", "share(*worker, 1)", "does not compute"),
    "the next row too": ("share(*worker, {{ rows }})", "share(*worker, {{ rows }} + 1)", "writes beyond its results"),
    "far away": ("{{ y }} + row", "{{ y }} + 400000000 + row", r"crashes \(signal"),
    "by thread": ("set1(3.0f)", "set1(3.0f + 1e-5f * worker->index)", "other bits with two threads"),
    "no end": ("for (auto", "for (volatile int stop = 0; !stop;) {}\nfor (auto", "does not end"),
}


def triple(x: torch.Tensor) -> torch.Tensor:
    return x * 3.0


def made(template: str, reference: Callable[..., torch.Tensor] = triple, dtype: str = "f32") -> Program:
    """A program of one call of an op whose kernel is this template."""
    op = Op("triple", reference, Traits(rowwise=True), {"f32": 1e-6, "bf16": 2**-8}, infer=lambda x: x)

    @op.kernel("cpu")
    def _(call: KernelCall) -> None:
        (x,) = call.node.args
        if template:
            values = {"x": call.value(x), "y": call.result(), "rows": call.rows(x), "width": width(x)}
            call.define("triple", template, **values)

    one = program(f"func forward(%x: {dtype}[T, 37]) -> (y) {{\n %y: {dtype}[T, 37] = neg(%x)\n return %y\n}}")
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.target = "x"
    x.meta.update(type=TensorType(dtype, (symbol("T"), 37)), where="")
    graph.output((emit(graph, op, x),))
    one.functions["forward"] = Function("forward", graph, ("y",))
    return one


def build(one: Program, work) -> list[str]:
    said: list[str] = []
    CpuTarget().emit(one, BuildOptions(isa=("native",)), work, said.append)
    return said


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_right_kernel_is_run_and_taken(dtype, tmp_path):
    assert "running triple" in build(made(RIGHT, dtype=dtype), tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_stops_the_compile(fault, tmp_path, monkeypatch):
    monkeypatch.setattr("xllmc.codegen.cpu.kernel_check.TIME_LIMIT", 5)
    right, wrong, said = FAULTS[fault]
    assert right in RIGHT
    with pytest.raises(
        XllmcError, match=rf"the CPU kernel of op triple \(.*test_kernel_check\), for f32\[T, 37\], .*{said}"
    ):
        build(made(RIGHT.replace(right, wrong)), tmp_path)


def test_a_kernel_that_says_nothing_is_refused(tmp_path):
    with pytest.raises(XllmcError, match="the CPU kernel of op triple says nothing"):
        build(made(""), tmp_path)


def test_a_reference_of_another_dtype_than_its_type_rule_is_refused(tmp_path):
    with pytest.raises(
        XllmcError, match=r"the reference of op triple gives float64\[5, 37\], where its type rule says f32"
    ):
        build(made(RIGHT, reference=lambda x: x.double() * 3.0), tmp_path)


def test_xllmcs_own_kernels_are_not_run(tmp_path):
    text = "func forward(%x: f32[T, 16]) -> (y) {\n %y: f32[T, 16] = rms_norm(%x, @w, eps=1e-06)\n return %y\n}"
    assert not any(s.startswith("running") for s in build(program(text, ["w [16]"]), tmp_path))
