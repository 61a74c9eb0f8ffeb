"""Normalisations: one program a row, which it holds whole."""

from ..kernel import Config, TritonCall, axis, power_of_two, width
from ..registering import provides

_WARP_ELEMENTS = 512
"""Of a row, for each warp: sixteen a thread."""


@provides("rms_norm", "layer_norm", "add_rms_norm", "add_layer_norm")
def norm(call: TritonCall) -> None:
    name = call.node.target.name
    x, *others = call.node.args
    residual = others.pop(0) if name.startswith("add_") else None
    weight, *bias = others
    operands = {"x": call.value(x), "weight": call.value(weight)}
    if bias:
        operands["bias"] = call.value(bias[0])
    if residual is not None:
        operands |= {"residual": call.value(residual), "total": call.result(0), "out": call.result(1)}
    else:
        operands["out"] = call.result()
    rows, block = call.rows(x), power_of_two(width(x))
    call.launch(
        name,
        "norm.py.j2",
        operands,
        (axis(rows),),
        Config({"BLOCK": block}, warps=min(max(block // _WARP_ELEMENTS, 1), 8), stages=1),
        rows=call.count(rows),
        width=width(x),
        eps=call.node.kwargs["eps"],
        centred="layer" in name,
        added=residual is not None,
        biased=bool(bias),
    )
