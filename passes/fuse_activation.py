"""An activation applied to a matrix product becomes its epilogue."""

from .api import Float, Match, OneOf, SiteCosts, Value, Weight, example, ops, rewrite


@rewrite(stage="fused", numerics="reassociating", after="fuse-gated-linear", through=())
class FuseActivation:
    """``gelu_tanh(linear(x, w, b))``   ==>   ``linear(x, w, b, activation=gelu_tanh)``"""

    def pattern(
        self,
        x: Float[Value, "... K"],
        w: Weight[Value, "N K"],
        b: Weight[Value, "N"] | None,
        activation: OneOf[str, "silu relu gelu_erf gelu_tanh tanh sigmoid"],
    ) -> Value:
        return ops[activation](ops.linear(x, w, b))

    def replacement(self, x: Value, w: Value, b: Value | None, activation: str) -> Value:
        return ops.linear(x, w, b, activation=activation)

    def gain(self, m: Match, costs: SiteCosts) -> float:
        return costs.saved

    examples = (
        example(
            lambda x, w, b: ops.gelu_tanh(ops.linear(x, w, b)),
            x="bf16[T, 64]",
            w="weight bf16[96, 64]",
            b="weight bf16[96]",
        ),
        example(lambda x, w: ops.relu(ops.linear(x, w, None)), x="f32[T, 64]", w="weight f32[40, 64]"),
        example(lambda x: ops.silu(x * 2.0), x="f32[T, 64]", rejects="is not linear"),
        example(
            lambda x, w: (ops.relu(y := ops.linear(x, w, None)), y),
            x="f32[T, 64]",
            w="weight f32[40, 64]",
            rejects="is read elsewhere too",
        ),
    )
