"""A gated MLP's two projections become one matrix product whose epilogue applies the gate (Shazeer, 2020)."""

from ..compiler.ops.linear import GATE_BLOCK
from .api import Float, OneOf, Value, Weight, example, ops, recipes, rewrite


@rewrite(stage="fused", numerics="reassociating", through=())
class FuseGatedLinear:
    """``silu(linear(x, gate)) * linear(x, up)``   ==>   ``linear(x, interleave(gate, up), activation=silu, gated=N)``

    The weights alternate in blocks of half a panel, so that a gate and its partner meet in one kernel's registers.
    """

    def pattern(
        self,
        x: Float[Value, "... K"],
        gate: Weight[Value, "N K"],
        up: Weight[Value, "N K"],
        activation: OneOf[str, "silu relu gelu_erf gelu_tanh tanh sigmoid"],
    ) -> Value:
        return ops[activation](ops.linear(x, gate, None)) * ops.linear(x, up, None)

    def replacement(self, x: Value, gate: Value, up: Value, activation: str) -> Value:
        joined = recipes.interleave(gate, up, block=GATE_BLOCK)
        return ops.linear(x, joined, None, activation=activation, gated=gate.shape[0])

    examples = (
        example(
            lambda x, gate, up: ops.silu(ops.linear(x, gate, None)) * ops.linear(x, up, None),
            x="bf16[T, 64]",
            gate="weight bf16[96, 64]",
            up="weight bf16[96, 64]",
        ),
        example(
            lambda x, gate, up: ops.linear(x, up, None) * ops.gelu_tanh(ops.linear(x, gate, None)),
            x="f32[T, 64]",
            gate="weight f32[40, 64]",
            up="weight f32[40, 64]",
        ),
        example(
            lambda x, y, gate, up: ops.silu(ops.linear(x, gate, None)) * ops.linear(y, up, None),
            x="f32[T, 64]",
            y="f32[T, 64]",
            gate="weight f32[32, 64]",
            up="weight f32[32, 64]",
            rejects="is not x, which is",
        ),
        example(
            lambda x, gate, up: (ops.silu(g := ops.linear(x, gate, None)) * ops.linear(x, up, None), g),
            x="f32[T, 64]",
            gate="weight f32[32, 64]",
            up="weight f32[32, 64]",
            rejects="is read elsewhere too",
        ),
    )
