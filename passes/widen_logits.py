"""Logits leave the last matrix product in float32, and what follows it (soft caps) computes in float32."""

from torch import fx

from ..compiler.ir.op import Op
from .api import Rewriter, example, graph_pass, is_call, ops, type_of


@graph_pass(stage="canonical", numerics="reassociating", after="select-rows")
class WidenLogits:
    """``div(linear(x, w): bf16, 30.0) ...``   ==>   ``div(linear(x, w, out_dtype=f32): f32, 30.0) ...``"""

    def run(self, rewriter: Rewriter) -> None:
        function = rewriter.function
        for name, result in zip(function.results, function.outputs, strict=True):
            if (name == "logits" or len(function.results) == 1) and type_of(result).dtype != "f32":
                self.widen(rewriter, result)

    def widen(self, rewriter: Rewriter, logits: fx.Node) -> None:
        chain = [logits]
        while not is_call(chain[-1], "linear"):
            node = chain[-1]
            pointwise = node.op == "call_function" and isinstance(node.target, Op) and node.target.traits.pointwise
            inputs = node.all_input_nodes
            if not pointwise or len(inputs) != 1:
                rewriter.miss(logits, f"{node.name} is not a pointwise op of one value over a linear; cast at the end")
                place = rewriter.function.output
                rewriter.replace({logits: rewriter.at(place).emit("cast", logits, dtype="f32")})
                return
            chain.append(inputs[0])
        linear = chain.pop()
        wide: fx.Node = rewriter.at(linear).emit("linear", *linear.args, **{**linear.kwargs, "out_dtype": "f32"})
        for node in reversed(chain):
            rewriter.at(node)
            if not is_call(node, "cast"):
                operands = [wide if isinstance(a, fx.Node) else a for a in node.args]
                wide = rewriter.emit(node.target, *operands, **node.kwargs)
        rewriter.replace({logits: wide})
        rewriter.erase_dead()

    examples = (
        example(
            lambda x, head: ops.tanh(ops.linear(x, head, None) / 30.0) * 30.0,
            x="bf16[R, 64]",
            head="weight bf16[96, 64]",
        ),
        example(
            lambda x, head: ops.cast(ops.linear(x, head, None), dtype="f32"),
            matches=0,
            x="bf16[R, 64]",
            head="weight bf16[96, 64]",
        ),
        example(
            lambda x, y, head: ops.linear(x, head, None) + y,
            x="bf16[R, 64]",
            y="bf16[R, 96]",
            head="weight bf16[96, 64]",
        ),
    )
