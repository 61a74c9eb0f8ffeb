"""Ops that move or select elements."""

from .....compiler.ir.dims import Dim
from ..call import NpuCall, provides, writes


@writes("reshape")
def reshape(call: NpuCall) -> None:
    sizes = [-1 if isinstance(size, Dim) else size for size in call.attribute("shape")]
    call.give(call.expression(f"{{0}}.reshape({sizes})"))


@provides("permute")
def permute(call: NpuCall) -> None:
    call.give(call.expression(f"{{0}}.permute({list(call.attribute('axes'))}).contiguous()"))


@provides("slice")
def slice_(call: NpuCall) -> None:
    """A copy, as operators of torch_npu want what they read to be contiguous."""
    axis, start, stop = (call.attribute(name) for name in ("axis", "start", "stop"))
    call.give(call.expression(f"{{0}}.narrow({axis}, {start}, {stop - start}).contiguous()"))


@provides("concat")
def concat(call: NpuCall) -> None:
    parts = ", ".join(f"{{{i}}}" for i in range(len(call.node.args)))
    call.give(call.expression(f"torch.cat([{parts}], {call.attribute('axis')})"))


@provides("take_rows")
def take_rows(call: NpuCall) -> None:
    call.give(call.expression("{0}.index_select(0, {1})"))


@writes("get")
def get(call: NpuCall) -> None:
    results = call.held(0)
    assert isinstance(results, tuple), f"{call.node.args[0]} has one result"
    call.give(results[call.attribute("index")])
