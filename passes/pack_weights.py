"""Choose how each weight is stored."""

from dataclasses import replace

from .api import Rewriter, example, graph_pass, is_weight, ops


@graph_pass(stage="lowered")
class PackWeights:
    """Matrices that a matrix product reads go into panels, all else stays in rows.

    A table that is both embedding and output head is stored once, in panels; the embedding gathers from them.
    """

    def run(self, rewriter: Rewriter) -> None:
        weights = rewriter.program.weights
        for node in rewriter.calls("linear"):
            matrix = node.args[1]
            if not is_weight(matrix):
                rewriter.miss(node, "multiplies by a computed matrix")
            elif weights[matrix.target].layout != "panels":
                rewriter.matched(node)
                weights[matrix.target] = replace(weights[matrix.target], layout="panels")

    examples = (
        example(
            lambda ids, table: ops.linear(ops.embedding(table, ids), table, None),
            ids="i32[T]",
            table="weight bf16[64, 64]",
        ),
        example(lambda ids, table: ops.embedding(table, ids), matches=0, ids="i32[T]", table="weight bf16[64, 64]"),
        example(
            lambda x, m: ops.linear(x, m, None),
            x="f32[T, 64]",
            m="f32[32, 64]",
            rejects="multiplies by a computed matrix",
        ),
    )
