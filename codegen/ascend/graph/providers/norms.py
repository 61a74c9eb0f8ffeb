"""Normalisations.

The operators of torch_npu want weights of the input's dtype. Where a weight is float32 and the input is not, the input
is widened, which is what the op means: float32 inside, and one rounding.
"""

from ..call import NpuCall, provides
from ..schemas import Value


@provides("rms_norm")
def rms_norm(call: NpuCall) -> None:
    call.give(normed(call, call.tensor(0), 0, 1))


@provides("add_rms_norm")
def add_rms_norm(call: NpuCall) -> None:
    x, residual = call.tensor(0), call.tensor(1)
    if call.type(2).dtype == call.type(0).dtype:
        out, _, total = call.results_of(
            "npu_add_rms_norm", ("normed", None, "total"), x, residual, call.tensor(2), epsilon=call.attribute("eps")
        )
        call.give(total, out)
    else:
        total = call.let("total", f"{x} + {residual}")
        call.give(total, normed(call, total, 0, 2))


def normed(call: NpuCall, x: Value, like: int, weight: int) -> Value:
    """``rms_norm`` of x, whose type is operand ``like``'s, by the weight that operand ``weight`` is."""
    dtype, gamma = call.type(like).torch_dtype, call.tensor(weight)
    widened = call.type(weight).torch_dtype != dtype
    wide = Value(f"{x}.float()") if widened else x
    out, _ = call.results_of("npu_rms_norm", ("normed", None), wide, gamma, epsilon=call.attribute("eps"))
    return Value(f"{out}.to({dtype})") if widened else out


@provides("layer_norm")
def layer_norm(call: NpuCall) -> None:
    call.give(layer_normed(call, call.tensor(0), 1))


@provides("add_layer_norm")
def add_layer_norm(call: NpuCall) -> None:
    x, residual = call.tensor(0), call.tensor(1)
    if {call.type(i).dtype for i in range(4)} == {call.type(0).dtype}:
        out, _, _, total = call.results_of(
            "npu_add_layer_norm",
            ("normed", None, None, "total"),
            x,
            residual,
            call.tensor(2),
            call.tensor(3),
            epsilon=call.attribute("eps"),
            additional_output=True,
        )
        call.give(total, out)
    else:
        total = call.let("total", f"{x} + {residual}")
        call.give(total, layer_normed(call, total, 2))


def layer_normed(call: NpuCall, x: Value, weight: int) -> Value:
    """``layer_norm`` of x, of operand 0's type, by the weight and the bias that begin at operand ``weight``."""
    kind = call.type(0)
    parts = [call.tensor(weight), call.tensor(weight + 1)]
    widened = {call.type(weight).dtype, call.type(weight + 1).dtype} != {kind.dtype}
    if widened:
        x, parts = Value(f"{x}.float()"), [Value(f"{part}.float()") for part in parts]
    out = call.operator("npu_layer_norm_eval", x, (kind.shape[-1],), *parts, eps=call.attribute("eps"))
    return Value(f"{out}.to({kind.torch_dtype})") if widened else out
