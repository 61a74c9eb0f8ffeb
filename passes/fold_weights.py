"""Move computations on weights alone into their recipes, so that they happen when weights are packed.

add(cast(@w, f32), 1.0)      ==>   @w.cast.add     = add_scalar(to_dtype(w, f32), 1.0)
permute(@w, [1, 0])          ==>   @w.permute      = permute(w, [1, 0])
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from ..compiler.ir.program import Weight, is_call, is_weight
from ..runtime.artifact.recipe import Recipe
from .api import Pass, Report, Rewriter, Stage


@dataclass(frozen=True)
class FoldWeights(Pass):
    name: ClassVar[str] = "fold-weights"
    stage: ClassVar[Stage] = "canonical"

    def run(self, rewriter: Rewriter) -> Report:
        report = Report()
        for node in rewriter.calls():
            if not node.args or not all(is_weight(a) or isinstance(a, int | float) for a in node.args):
                continue
            recipe = self.recipe_of(node, rewriter.program.weights[node.args[0].target].recipe)
            if recipe is None:
                report.miss(node, f"no recipe operation for {node.target.name} of a weight")
                continue
            name = f"{node.args[0].target}.{node.target.name}"
            folded = rewriter.weight(name, Weight(node.meta["type"], recipe))
            rewriter.replace({node: folded})
            report.matches += 1
        rewriter.erase_dead()
        return report

    def recipe_of(self, node: fx.Node, recipe: Recipe) -> Recipe | None:
        if is_call(node, "cast"):
            return Recipe.of("to_dtype", recipe, dtype=node.kwargs["dtype"])
        if is_call(node, "permute", "reshape", "slice"):
            return Recipe.of(node.target.name, recipe, **node.kwargs)
        if is_call(node, "add") and isinstance(node.args[1], int | float):
            return Recipe.of("add_scalar", recipe, value=float(node.args[1]))
        return None
