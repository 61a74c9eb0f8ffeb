"""See GPT-2's tanh approximation of GELU (Hendrycks & Gimpel, 2016) in its arithmetic."""

from math import pi, sqrt

from .api import Float, Value, example, ops, rewrite


def gelu(x: Value, cubic: float = 0.044715) -> Value:
    inner = (x + ops.pow(x, exponent=3.0) * cubic) * sqrt(2 / pi)
    return (x * 0.5) * (ops.tanh(inner) + 1.0)


@rewrite(stage="recognised", numerics="reassociating")
class RecognizeGelu:
    """``0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x ** 3)))``   ==>   ``gelu_tanh(x)``"""

    def pattern(self, x: Float[Value, "..."]) -> Value:
        return gelu(x)

    def replacement(self, x: Value) -> Value:
        return ops.gelu_tanh(x)

    examples = (
        example(lambda x: gelu(x), x="bf16[T, 64]"),
        example(lambda x: gelu(x), x="f32[T, 2, 32]"),
        example(lambda x: gelu(x, 0.05), x="f32[T, 64]", rejects="0.05 is not 0.044715"),
    )
