"""Projections of one input become one matrix product over stacked weights, then slices.

q = linear(x, wq)                 y = linear(x, concat(wq, wk, wv))
k = linear(x, wk)        ==>      q = slice(y, 0:Q);  k = slice(y, Q:Q+K);  v = slice(y, Q+K:)
v = linear(x, wv)
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from ..compiler.ir.program import Weight, is_weight, type_of
from ..runtime.artifact.recipe import Recipe
from .api import Pass, Report, Rewriter, Stage
from .fuse_gated_linear import parent


@dataclass(frozen=True)
class FuseLinears(Pass):
    name: ClassVar[str] = "fuse-linears"
    stage: ClassVar[Stage] = "fused"

    def run(self, rewriter: Rewriter) -> Report:
        groups: dict[fx.Node, list[fx.Node]] = {}
        for node in rewriter.calls("linear"):
            if not node.kwargs and is_weight(node.args[1]) and (node.args[2] is None or is_weight(node.args[2])):
                groups.setdefault(node.args[0], []).append(node)
        report = Report()
        for linears in groups.values():
            if len(linears) < 2:
                continue
            if len({n.args[2] is None for n in linears}) > 1:
                report.miss(linears[0], "some of the projections have a bias and some do not")
                continue
            self.fuse(rewriter, linears)
            report.matches += 1
        rewriter.erase_dead()
        return report

    def fuse(self, rewriter: Rewriter, linears: list[fx.Node]) -> None:
        rewriter.at(linears[0])
        operands: list[fx.Node | None] = []
        for position, suffix in ((1, "weight"), (2, "bias")):
            if linears[0].args[position] is None:
                operands.append(None)
                continue
            names = [n.args[position].target for n in linears]
            parts = [rewriter.program.weights[n] for n in names]
            rows = sum(p.type.sizes[0] for p in parts)
            kind = parts[0].type.with_shape(rows, *parts[0].type.shape[1:])
            stacked = Weight(kind, Recipe.of("concat", *(p.recipe for p in parts), axis=0))
            leaves = [str(n).removesuffix(f".{suffix}").split(".")[-1].removesuffix("_proj") for n in names]
            operands.append(rewriter.weight(f"{parent(str(names[0]))}.{'_'.join(leaves)}.{suffix}", stacked))
        joined = rewriter.emit("linear", linears[0].args[0], *operands)
        axis, start = len(type_of(joined).shape) - 1, 0
        replacements = {}
        for node in linears:
            width = type_of(node).shape[-1]
            replacements[node] = rewriter.emit("slice", joined, axis=axis, start=start, stop=start + width)
            start += width
        rewriter.replace(replacements)
