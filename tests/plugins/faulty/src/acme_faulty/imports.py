"""It cannot be imported: its two sides disagree."""

from xllmc.passes.api import Float, Value, example, ops, rewrite


@rewrite(stage="recognised")
class FaultyImports:
    """A sum of two becomes one of them, in another type."""

    def pattern(self, x: Float[Value, "T H"], y: Float[Value, "T H"]) -> Value:
        return x + y

    def replacement(self, x: Value, y: Value) -> Value:
        return ops.cast(x, dtype="i32")

    examples = (example(lambda x, y: x + y, x="f32[T, 64]", y="f32[T, 64]"),)


PASSES = (FaultyImports,)
