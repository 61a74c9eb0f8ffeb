"""See rotary position embedding (Su et al., 2021) in its arithmetic."""

from .api import Float, Int, Match, Number, Size, Value, Weight, example, ops, optional, rewrite, type_of


def rotated(x: Value, positions: Value, inv_freq: Value, scale: float | None = None, half: int = 8) -> Value:
    """As transformers writes it, for ``x`` [T, heads, 2 * half]."""
    angles = ops.reshape(ops.cast(positions, dtype="f32"), shape=(positions.shape[0], 1)) * inv_freq
    both = ops.concat(angles, angles, axis=1)
    cos, sin = (f(both) if scale is None else f(both) * scale for f in (ops.cos, ops.sin))
    cos, sin = (ops.reshape(ops.cast(t, dtype=x.dtype), shape=(positions.shape[0], 1, t.shape[1])) for t in (cos, sin))
    low = ops.slice(x, axis=2, start=0, stop=half)
    high = ops.slice(x, axis=2, start=half, stop=x.shape[2])
    return x * cos + ops.concat(-high, low, axis=2) * sin


@rewrite(stage="recognised", numerics="reassociating", through=("cast", "reshape"), shared=True, landmark="cos")
class RecognizeRope:
    """Two halves of a head turned against each other by an angle for each position   ==>   ``rope(x, table)``

        angles = positions * inv_freq;  c = cos([angles, angles]) * scale;  s = sin([angles, angles]) * scale
        x * c + [-high(x), low(x)] * s      ==>      rope(x, rope_table(positions, inv_freq, scale))

    The table is computed once for all layers, and stays in float32, where transformers rounds it to the model's dtype.
    """

    def pattern(
        self,
        x: Float[Value, "... D"],
        positions: Int[Value, "T"],
        inv_freq: Weight[Value, "half"],
        axis: Size,
        half: Size,
        D: Size,
        scale: Number = 1.0,
    ) -> Value:
        angles = positions * inv_freq
        both = ops.concat(angles, angles, axis=1)
        cos = optional(ops.mul, ops.cos(both), scale)
        sin = optional(ops.mul, ops.sin(both), scale)
        low = ops.slice(x, axis=axis, start=0, stop=half)
        high = ops.slice(x, axis=axis, start=half, stop=D)
        return x * cos + ops.concat(-high, low, axis=axis) * sin

    def when(self, m: Match) -> str | None:
        kind = type_of(m.x)
        axes = len(kind.shape)
        if axes not in (2, 3) or m.axis != axes - 1:
            return f"it turns axis {m.axis} of {kind}, not the last of [T, heads, D] or [T, D]"
        if 2 * m.half != m.D:
            return f"it turns {m.half} elements against the other {m.D - m.half}, not the halves of {kind}"
        return None

    def replacement(self, x: Value, positions: Value, inv_freq: Value, scale: float) -> Value:
        table = ops.rope_table(positions, inv_freq, scale=float(scale))
        if len(x.shape) == 3:
            return ops.rope(x, table)
        tokens, dim = x.shape  # a single head has no axis of its own in the trace
        return ops.reshape(ops.rope(ops.reshape(x, shape=(tokens, 1, dim)), table), shape=(tokens, dim))

    examples = (
        example(
            lambda x, positions, inv_freq: rotated(x, positions, inv_freq),
            x="bf16[T, 4, 16]",
            positions="i32[T]",
            inv_freq="weight f32[8]",
        ),
        example(
            lambda x, positions, inv_freq: rotated(x, positions, inv_freq, scale=1.25),
            x="f32[T, 1, 16]",
            positions="i32[T]",
            inv_freq="weight f32[8]",
        ),
        example(
            lambda x, positions, inv_freq: rotated(x, positions, inv_freq, half=6),
            x="f32[T, 1, 16]",
            positions="i32[T]",
            inv_freq="weight f32[8]",
            rejects="half is 8 in one place and 6 in another",
        ),
    )
