"""Pointwise ops and reductions as torch's own: each rounds to its dtype, as the reference does."""

from .....compiler.ir.types import TORCH_DTYPES
from ..call import NpuCall, writes

EXPRESSIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "{0}.abs()",
    "exp": "{0}.exp()",
    "log": "{0}.log()",
    "sqrt": "{0}.sqrt()",
    "rsqrt": "{0}.rsqrt()",
    "sin": "{0}.sin()",
    "cos": "{0}.cos()",
    "tanh": "{0}.tanh()",
    "sigmoid": "{0}.sigmoid()",
    "erf": "{0}.erf()",
    "silu": "functional.silu({0})",
    "relu": "functional.relu({0})",
    "gelu_erf": "functional.gelu({0})",
    "gelu_tanh": "functional.gelu({0}, approximate='tanh')",
    "mean": "{0}.mean(-1, keepdim=True)",
    "sum": "{0}.sum(-1, keepdim=True)",
    "amax": "{0}.amax(-1, keepdim=True)",
}


@writes(*EXPRESSIONS)
def simple(call: NpuCall) -> None:
    call.give(call.expression(EXPRESSIONS[call.op.name]))


@writes("maximum", "minimum")
def larger_or_smaller(call: NpuCall) -> None:
    """``clamp`` takes a number; it keeps what is not a number, as ``maximum`` does."""
    if isinstance(call.node.args[1], int | float):
        bound = "min" if call.op.name == "maximum" else "max"
        call.give(call.expression(f"{{0}}.clamp({bound}={{1}})"))
    else:
        call.give(call.expression(f"torch.{call.op.name}({{0}}, {{1}})"))


@writes("pow")
def power(call: NpuCall) -> None:
    call.give(call.expression(f"{{0}}.pow({call.attribute('exponent')!r})"))


@writes("cast")
def cast(call: NpuCall) -> None:
    call.give(call.expression(f"{{0}}.to({TORCH_DTYPES[call.attribute('dtype')]})"))
