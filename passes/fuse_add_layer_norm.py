"""A residual addition and the layer norm that reads it become one op, so that the sum is read and written once."""

from .api import Float, Match, Number, SiteCosts, Value, Values, Weight, example, ops, rewrite


@rewrite(stage="fused")
class FuseAddLayerNorm:
    """``s = x + residual;  y = layer_norm(s, w, b)``   ==>   ``s, y = add_layer_norm(x, residual, w, b)``"""

    def pattern(
        self,
        x: Float[Value, "... H"],
        residual: Float[Value, "... H"],
        w: Weight[Value, "H"],
        b: Weight[Value, "H"],
        eps: Number,
    ) -> Values:
        total = x + residual
        return total, ops.layer_norm(total, w, b, eps=eps)

    def replacement(self, x: Value, residual: Value, w: Value, b: Value, eps: float) -> Values:
        both = ops.add_layer_norm(x, residual, w, b, eps=eps)
        return both[0], both[1]

    def gain(self, m: Match, costs: SiteCosts) -> float:
        return costs.saved

    examples = (
        example(
            lambda x, residual, w, b: ((s := x + residual), s * ops.layer_norm(s, w, b, eps=1e-5)),
            x="bf16[T, 64]",
            residual="bf16[T, 64]",
            w="weight bf16[64]",
            b="weight bf16[64]",
        ),
        example(
            lambda x, w, b: ops.layer_norm(x * 2.0, w, b, eps=1e-5),
            x="f32[T, 64]",
            w="weight f32[64]",
            b="weight f32[64]",
            rejects="is not add",
        ),
    )
