"""See a root-mean-square norm in its arithmetic."""

from .api import Float, Number, Value, Weight, example, ops, rewrite


def llama(x: Value, w: Value) -> Value:
    wide = ops.cast(x, dtype="f32")
    normed = wide * ops.rsqrt(ops.mean(ops.pow(wide, exponent=2.0)) + 1e-5)
    return w * ops.cast(normed, dtype="bf16")


def gemma(x: Value, w: Value) -> Value:
    wide = ops.cast(x, dtype="f32")
    normed = wide * ops.rsqrt(ops.mean(ops.pow(wide, exponent=2.0)) + 1e-6)
    return ops.cast(normed * w, dtype="bf16")


@rewrite(stage="recognised", numerics="reassociating", landmark="rsqrt")
class RecognizeRMSNorm:
    """``w * x * rsqrt(mean(x ** 2) + eps)``   ==>   ``rms_norm(x, w, eps)``

    Casts may stand anywhere: the norm computes in float32 and rounds once, where Llama's arithmetic rounds before the
    weight is applied. The weight may be float32 (Gemma's 1 + w).
    """

    def pattern(self, x: Float[Value, "... H"], w: Weight[Value, "H"], eps: Number) -> Value:
        variance = ops.mean(ops.pow(x, exponent=2.0))
        return w * (x * ops.rsqrt(variance + eps))

    def replacement(self, x: Value, w: Value, eps: float) -> Value:
        return ops.rms_norm(x, w, eps=float(eps))

    examples = (
        example(llama, x="bf16[T, 64]", w="weight bf16[64]"),
        example(gemma, x="bf16[T, 64]", w="weight f32[64]"),
        example(
            lambda x, w: w * (x * ops.rsqrt(ops.mean(ops.pow(x, exponent=2.0)) + 1e-5)),
            x="f32[T, 64]",
            w="weight f32[64]",
        ),
        example(llama, x="bf16[T, 4, 16]", w="weight bf16[16]"),
        example(
            lambda x, w: w * (x * ops.rsqrt(ops.mean(ops.pow(x, exponent=3.0)) + 1e-5)),
            x="f32[T, 64]",
            w="weight f32[64]",
            rejects="exponent 3.0, not 2.0",
        ),
        example(
            lambda x, w: w * (x * ops.rsqrt(ops.mean(ops.pow(x, exponent=2.0)) + 1e-5)),
            x="f32[T, 64]",
            w="weight f32[1]",
            rejects="H is 64, and f32[1] has 1",
        ),
    )
