"""Projections of one input become one matrix product over stacked weights, then slices."""

from torch import fx

from ..runtime.artifact.recipe import Recipe
from .api import Rewriter, WeightEntry, example, graph_pass, is_weight, ops, type_of
from .authoring.recording import joined_name


@graph_pass(stage="fused", after=("fuse-gated-linear", "fuse-activation"))
class FuseLinears:
    """However many products of one input there are, their weights are stacked.

    q = linear(x, wq)                 y = linear(x, concat(wq, wk, wv))
    k = linear(x, wk)        ==>      q = slice(y, 0:Q);  k = slice(y, Q:Q+K);  v = slice(y, Q+K:)
    v = linear(x, wv)
    """

    def run(self, rewriter: Rewriter) -> None:
        groups: dict[fx.Node, list[fx.Node]] = {}
        for node in rewriter.calls("linear"):
            if not node.kwargs and is_weight(node.args[1]) and (node.args[2] is None or is_weight(node.args[2])):
                groups.setdefault(node.args[0], []).append(node)
        for linears in groups.values():
            if len(linears) < 2:
                continue
            if len({n.args[2] is None for n in linears}) > 1:
                rewriter.miss(linears[0], "some of the projections have a bias and some do not")
                continue
            self.fuse(rewriter, linears)
        rewriter.erase_dead()

    def fuse(self, rewriter: Rewriter, linears: list[fx.Node]) -> None:
        rewriter.at(linears[0])
        operands: list[fx.Node | None] = []
        for position in (1, 2):
            if linears[0].args[position] is None:
                operands.append(None)
                continue
            names = [str(n.args[position].target) for n in linears]
            parts = [rewriter.program.weights[n] for n in names]
            rows = sum(p.type.sizes[0] for p in parts)
            kind = parts[0].type.with_shape(rows, *parts[0].type.shape[1:])
            stacked = WeightEntry(kind, Recipe.of("concat", *(p.recipe for p in parts), axis=0))
            operands.append(rewriter.weight(joined_name(names, "concat"), stacked))
        joined = rewriter.emit("linear", linears[0].args[0], *operands)
        axis, start = len(type_of(joined).shape) - 1, 0
        replacements = {}
        for node in linears:
            width = type_of(node).shape[-1]
            replacements[node] = rewriter.emit("slice", joined, axis=axis, start=start, stop=start + width)
            start += width
        rewriter.replace(replacements)

    examples = (
        example(
            lambda x, q, k, v: (ops.linear(x, q, None), ops.linear(x, k, None), ops.linear(x, v, None)),
            x="bf16[T, 64]",
            q="weight bf16[64, 64]",
            k="weight bf16[16, 64]",
            v="weight bf16[24, 64]",
        ),
        example(
            lambda x, y, q, k, qb, kb: ops.exp(ops.linear(x, q, qb)) + ops.linear(x, k, kb) * ops.linear(y, q, qb),
            x="f32[T, 2, 64]",
            y="f32[T, 2, 64]",
            q="weight f32[40, 64]",
            k="weight f32[40, 64]",
            qb="weight f32[40]",
            kb="weight f32[40]",
        ),
        example(
            lambda x, q, k, qb: (ops.linear(x, q, qb), ops.linear(x, k, None)),
            x="f32[T, 64]",
            q="weight f32[40, 64]",
            k="weight f32[40, 64]",
            qb="weight f32[40]",
            rejects="some of the projections have a bias and some do not",
        ),
        example(
            lambda x, q, k: (ops.linear(x, q, None, activation="relu"), ops.linear(x, k, None)),
            matches=0,
            x="f32[T, 64]",
            q="weight f32[40, 64]",
            k="weight f32[40, 64]",
        ),
    )
