"""The pass: where a model caps its logits softly, the op does."""

from xllmc.passes.api import Float, Match, Number, Value, example, ops, rewrite

from . import softcap_op as softcap_op


@rewrite(stage="recognised", numerics="reassociating")
class AcmeSoftcap:
    """``tanh(x / cap) * cap``   ==>   ``acme_softcap(x, cap)``"""

    smallest: float = 1.0
    """Caps below it are left alone."""

    def pattern(self, x: Float[Value, "..."], cap: Number) -> Value:
        return ops.tanh(x / cap) * cap

    def replacement(self, x: Value, cap: float) -> Value:
        return ops.acme_softcap(x, cap=cap)

    def when(self, m: Match) -> str | None:
        return f"its cap {m.cap} is below {self.smallest}" if m.cap < self.smallest else None

    examples = (
        example(lambda x: ops.tanh(x / 30.0) * 30.0, x="f32[R, 96]"),
        example(lambda x: ops.tanh(x / 5) * 5, x="bf16[T, 4, 33]"),
        example(lambda x: ops.cast(ops.tanh(ops.cast(x / 5.0, dtype="f32")) * 5.0, dtype="bf16"), x="bf16[T, 64]"),
        example(lambda x: ops.tanh(x / 30.0) * 15.0, x="f32[R, 96]", rejects="cap is 30.0 in one place and 15.0"),
        example(lambda x: ops.tanh(x / 0.5) * 0.5, x="f32[R, 96]", rejects="its cap 0.5 is below 1.0"),
    )
