"""Its types are right and its numbers are wrong."""

from xllmc.passes.api import Float, Number, Value, Weight, example, ops, rewrite


@rewrite(stage="recognised", numerics="reassociating")
class FaultyNumbers:
    """Norms with an epsilon that another model has."""

    def pattern(self, x: Float[Value, "... H"], w: Weight[Value, "H"], eps: Number) -> Value:
        return ops.rms_norm(x, w, eps=eps)

    def replacement(self, x: Value, w: Value, eps: float) -> Value:
        return ops.rms_norm(x, w, eps=eps * 1000)

    examples = (example(lambda x, w: ops.rms_norm(x, w, eps=1e-6), x="bf16[T, 64]", w="weight bf16[64]"),)


PASSES = (FaultyNumbers,)
