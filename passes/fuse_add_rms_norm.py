"""A residual addition and the norm that reads it become one op, so that the sum is read and written once."""

from .api import Float, Match, Number, SiteCosts, Value, Values, Weight, example, ops, rewrite


@rewrite(stage="fused")
class FuseAddRMSNorm:
    """``s = x + residual;  y = rms_norm(s, w)``   ==>   ``s, y = add_rms_norm(x, residual, w)``"""

    def pattern(
        self, x: Float[Value, "... H"], residual: Float[Value, "... H"], w: Weight[Value, "H"], eps: Number
    ) -> Values:
        total = x + residual
        return total, ops.rms_norm(total, w, eps=eps)

    def replacement(self, x: Value, residual: Value, w: Value, eps: float) -> Values:
        both = ops.add_rms_norm(x, residual, w, eps=eps)
        return both[0], both[1]

    def gain(self, m: Match, costs: SiteCosts) -> float:
        return costs.saved

    examples = (
        example(
            lambda x, residual, w: ops.rms_norm(x + residual, w, eps=1e-5),
            x="bf16[T, 64]",
            residual="bf16[T, 64]",
            w="weight bf16[64]",
        ),
        example(
            lambda x, residual, w: ((s := x + residual), s * ops.rms_norm(s, w, eps=1e-5)),
            x="f32[T, 64]",
            residual="f32[T, 64]",
            w="weight f32[64]",
        ),
        example(
            lambda x, residual, w: ops.rms_norm(x - residual, w, eps=1e-5),
            x="f32[T, 64]",
            residual="f32[T, 64]",
            w="weight f32[64]",
            rejects="is not add",
        ),
        example(
            lambda x, residual, w: ops.rms_norm(x + residual, w, eps=1e-5),
            x="f32[T, 64]",
            residual="f32[T, 1]",
            w="weight f32[64]",
            rejects="H is 1, and f32[T, 64] has 64",
        ),
    )
