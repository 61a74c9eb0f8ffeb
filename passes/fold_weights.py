"""Move computations on weights alone into their recipes, so that they happen when weights are packed."""

from torch import fx

from ..runtime.artifact.recipe import Recipe
from .api import Rewriter, WeightEntry, example, graph_pass, is_call, is_weight, ops


@graph_pass(stage="canonical")
class FoldWeights:
    """What is computed from weights alone becomes their recipe.

    add(cast(@w, f32), 1.0)      ==>   @w.cast.add     = add_scalar(to_dtype(w, f32), 1.0)
    permute(@w, [1, 0])          ==>   @w.permute      = permute(w, [1, 0])
    """

    def run(self, rewriter: Rewriter) -> None:
        for node in rewriter.calls():
            of_weights = all(is_weight(a) or isinstance(a, int | float) for a in node.args)
            if not node.args or not of_weights or not is_weight(node.args[0]):
                continue
            recipe = self.recipe_of(node, rewriter.program.weights[node.args[0].target].recipe)
            if recipe is None:
                rewriter.miss(node, f"no recipe operation for {node.target.name} of a weight")
                continue
            name = f"{node.args[0].target}.{node.target.name}"
            folded = rewriter.weight(name, WeightEntry(node.meta["type"], recipe))
            rewriter.replace({node: folded})
        rewriter.erase_dead()

    def recipe_of(self, node: fx.Node, recipe: Recipe) -> Recipe | None:
        if is_call(node, "cast"):
            return Recipe.of("to_dtype", recipe, dtype=node.kwargs["dtype"])
        if is_call(node, "permute", "reshape", "slice"):
            return Recipe.of(node.target.name, recipe, **node.kwargs)
        if is_call(node, "add") and isinstance(node.args[1], int | float):
            return Recipe.of("add_scalar", recipe, value=float(node.args[1]))
        return None

    examples = (
        example(
            lambda x, w: ops.rms_norm(x, ops.cast(w, dtype="f32") + 1.0, eps=1e-6),
            matches=2,
            x="bf16[T, 64]",
            w="weight bf16[64]",
        ),
        example(
            lambda x, m: ops.linear(x, ops.permute(m, axes=(1, 0)), None),
            x="f32[T, 64]",
            m="weight f32[64, 32]",
        ),
        example(
            lambda x, m: (
                ops.linear(x, ops.slice(m, axis=0, start=0, stop=32), None),
                ops.linear(x, ops.reshape(ops.slice(m, axis=0, start=32, stop=96), shape=(64, 64)), None),
            ),
            matches=3,
            x="bf16[T, 64]",
            m="weight bf16[96, 64]",
        ),
        example(
            lambda x, w: x * ops.exp(w),
            x="f32[T, 64]",
            w="weight f32[64]",
            rejects="no recipe operation for exp of a weight",
        ),
    )
