"""The op: what it means, what it gives, what it costs, and how the CPU and devices compute it."""

from importlib import resources

import torch
from xllmc.codegen.cpu.kernel import KernelCall, width
from xllmc.codegen.triton.kernel import Config, TritonCall, axis
from xllmc.passes.api import Cost, TensorType, Traits, elements, op, require, traffic


@op("acme_softcap", Traits(pointwise=True, rowwise=True), tolerance={"f32": 1e-5, "bf16": 2**-7})
def acme_softcap(x: torch.Tensor, *, cap: float) -> torch.Tensor:
    """``cap * tanh(x / cap)``: nearly x where that is small, and never beyond ``cap``.

    x: floats of any shape; result: x's type. Computed in float32, rounded once.
    """
    return (torch.tanh(x.float() / cap) * cap).to(x.dtype)


@acme_softcap.fake
def _(x: TensorType, *, cap: float) -> TensorType:
    require(x.is_float and cap > 0, f"acme_softcap requires floats and a cap above 0, got {x} and {cap}")
    return x


@acme_softcap.cost
def _(x: TensorType, *, cap: float) -> Cost:
    return traffic([x], x, flops=34 * elements(x))


@acme_softcap.kernel("cpu")
def _(call: KernelCall) -> None:
    (x,) = call.node.args
    call.include("acme/softcap.h", file("softcap.h"))
    call.define(
        "acme_softcap",
        file("softcap.cpp.j2"),
        x=call.value(x),
        y=call.result(),
        rows=call.rows(x),
        width=width(x),
        cap=call.real(call.node.kwargs["cap"]),
    )


@acme_softcap.kernel("triton")
def _(call: TritonCall) -> None:
    (x,) = call.node.args
    count = call.rows(x, trailing=0)
    call.launch(
        "acme_softcap",
        file("softcap.py.j2"),
        {"x": call.value(x), "y": call.result()},
        (axis(count, 1024),),
        Config({"BLOCK": 1024}),
        count=call.count(count),
        cap=call.node.kwargs["cap"],
    )


def file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text()
