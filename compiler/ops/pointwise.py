"""Pointwise ops. Tensors of one dtype, broadcast from the right; a real number may stand for the second operand.

The reference computes as torch does: in float32 for narrower floats, rounded to the dtype after every op.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from ..ir.op import Cost, Op, Traits
from ..ir.types import DTYPE_NAMES, TORCH_DTYPES, TensorType
from .registry import ROUNDED, op
from .typing import EFFORT, broadcast, elements, traffic

POINTWISE = Traits(pointwise=True, rowwise=True)
SAME_BITS = replace(POINTWISE, same_bits=True)
COMMUTATIVE = replace(SAME_BITS, commutative=True)


def _infer(*operands: Any, **attributes: Any) -> TensorType:
    tensors = [o for o in operands if isinstance(o, TensorType)]
    if len({t.dtype for t in tensors}) != 1:
        raise TypeError(f"pointwise operands must share a dtype, got {', '.join(map(str, tensors))}")
    return TensorType(tensors[0].dtype, broadcast(*(t.shape for t in tensors)))


def _cost(name: str) -> Callable[..., Cost]:
    def cost(*operands: Any, **attributes: Any) -> Cost:
        result = _infer(*operands)
        return traffic(operands, result, EFFORT.get(name, 1) * elements(result))

    return cost


def _pointwise(name: str, reference: Callable[..., Any], doc: str, traits: Traits = POINTWISE) -> Op:
    registered = op(name, traits, ROUNDED)(reference)
    registered.doc = doc
    registered.fake(_infer)
    registered.cost(_cost(name))
    return registered


def _like(a: torch.Tensor, b: torch.Tensor | float) -> torch.Tensor:
    return torch.as_tensor(b, dtype=a.dtype)


add = _pointwise("add", torch.add, "``a + b``", COMMUTATIVE)
sub = _pointwise("sub", torch.sub, "``a - b``", SAME_BITS)
mul = _pointwise("mul", torch.mul, "``a * b``", COMMUTATIVE)
div = _pointwise("div", torch.div, "``a / b``; by zero: infinite, and 0 / 0 is not a number", SAME_BITS)
maximum = _pointwise(
    "maximum",
    lambda a, b: torch.maximum(a, torch.as_tensor(b, dtype=a.dtype)),
    "the larger of ``a`` and ``b``; not a number if either is not",
    COMMUTATIVE,
)
minimum = _pointwise(
    "minimum",
    lambda a, b: torch.minimum(a, torch.as_tensor(b, dtype=a.dtype)),
    "the smaller of ``a`` and ``b``; not a number if either is not",
    COMMUTATIVE,
)
neg = _pointwise("neg", torch.neg, "``-x``", SAME_BITS)
absolute = _pointwise("abs", torch.abs, "``|x|``", SAME_BITS)
exp = _pointwise("exp", torch.exp, "``e ** x``")
log = _pointwise("log", torch.log, "natural logarithm; -inf at 0, not a number below")
sqrt = _pointwise("sqrt", torch.sqrt, "square root; not a number below 0", SAME_BITS)
rsqrt = _pointwise("rsqrt", torch.rsqrt, "``1 / sqrt(x)``; infinite at 0")
sin = _pointwise("sin", torch.sin, "sine of x in radians")
cos = _pointwise("cos", torch.cos, "cosine of x in radians")
tanh = _pointwise("tanh", torch.tanh, "hyperbolic tangent, between -1 and 1")
sigmoid = _pointwise("sigmoid", torch.sigmoid, "``1 / (1 + e ** -x)``, between 0 and 1")
erf = _pointwise(
    "erf", torch.erf, "error function, ``2 / sqrt(pi)`` times the integral of ``e ** -(t ** 2)`` from 0 to x"
)
silu = _pointwise("silu", F.silu, "``x * sigmoid(x)``, also called swish")
relu = _pointwise("relu", F.relu, "``max(x, 0)``", SAME_BITS)
gelu_erf = _pointwise(
    "gelu_erf", F.gelu, "``x * (1 + erf(x / sqrt(2))) / 2``, the exact form (Hendrycks & Gimpel, 2016)"
)
gelu_tanh = _pointwise(
    "gelu_tanh",
    lambda x: F.gelu(x, approximate="tanh"),
    "``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2``, the approximation that GPT-2 has",
)


@op("pow", POINTWISE)
def power(x: torch.Tensor, *, exponent: float) -> torch.Tensor:
    """``x ** exponent``, for a constant exponent.

    Not a number for x below 0 unless the exponent is a whole number.
    """
    return torch.pow(x, exponent)


power.fake(_infer)
power.cost(_cost("pow"))


@op("cast", SAME_BITS)
def cast(x: torch.Tensor, *, dtype: str) -> torch.Tensor:
    """x as another dtype: ``f32``, ``bf16`` and the others of a program's text.

    Floats round to nearest, ties to even; to integers they lose their fraction.
    """
    return x.to(TORCH_DTYPES[dtype])


@cast.fake
def _(x: TensorType, *, dtype: str) -> TensorType:
    if dtype not in TORCH_DTYPES:
        raise TypeError(f"cast requires a dtype of {', '.join(DTYPE_NAMES.values())}, got {dtype!r}")
    return x.with_dtype(dtype)


@cast.cost
def _(x: TensorType, *, dtype: str) -> Cost:
    return traffic([x], x.with_dtype(dtype), EFFORT["cast"] * elements(x))
