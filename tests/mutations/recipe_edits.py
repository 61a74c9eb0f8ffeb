"""Wrong recipes of the same type: what a packed weight could be instead of what it should be."""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from xllmc.compiler.ir.program import Program, Weight
from xllmc.compiler.ir.recipe_types import recipe_type
from xllmc.compiler.ir.types import TensorType
from xllmc.runtime.artifact.recipe import Recipe


class RecipeEdit(NamedTuple):
    operator: str
    what: str
    recipe: Recipe


def type_of_recipe(recipe: Recipe, program: Program) -> TensorType:
    if recipe.op == "source":
        return TensorType(recipe.attribute("dtype"), tuple(recipe.attribute("shape")))
    if recipe.op == "constant":
        array = program.constants[recipe.attribute("name")]
        return TensorType(array.dtype, tuple(array.values.shape))
    parts = [type_of_recipe(i, program) for i in recipe.inputs]
    return recipe_type(recipe.op, parts, dict(recipe.attributes))


def recipe_edits(recipe: Recipe, program: Program, made: bool) -> Iterator[RecipeEdit]:
    """Recipes of the same type. ``made``: the pass made the recipe, so that each operation in it may be wrong."""
    kind = type_of_recipe(recipe, program)
    rows = kind.sizes[0]
    if rows > 1:
        yield RecipeEdit("wrong weight row", "rows moved on by one", _rolled(recipe, rows))
    if made:
        for edit in _wrong_within(recipe, program):
            if edit.recipe != recipe and type_of_recipe(edit.recipe, program) == kind:
                yield edit


def other_weights(weight: Weight, program: Program) -> list[tuple[str, Weight]]:
    """The nearest weights of its type that are made otherwise, before and after it."""
    same = [(n, w) for n, w in program.weights.items() if w.type == weight.type and w.layout == weight.layout]
    place = next((i for i, (_, w) in enumerate(same) if w == weight), 0)
    return [(n, w) for n, w in same[max(0, place - 1) : place + 2] if w.recipe != weight.recipe]


def _rolled(recipe: Recipe, rows: int) -> Recipe:
    late = Recipe.of("slice", recipe, axis=0, start=1, stop=rows)
    first = Recipe.of("slice", recipe, axis=0, start=0, stop=1)
    return Recipe.of("concat", late, first, axis=0)


def _wrong_within(recipe: Recipe, program: Program) -> Iterator[RecipeEdit]:
    attributes = dict(recipe.attributes)
    parts = [type_of_recipe(i, program) for i in recipe.inputs]
    for i in range(len(parts)):
        for edit in _wrong_within(recipe.inputs[i], program):
            inputs = (*recipe.inputs[:i], edit.recipe, *recipe.inputs[i + 1 :])
            yield edit._replace(recipe=Recipe.of(recipe.op, *inputs, **attributes))
    if recipe.op in ("concat", "interleave"):
        for i in range(1, len(parts)):
            order = list(recipe.inputs)
            order[i - 1 : i + 1] = order[i - 1 : i + 1][::-1]
            yield RecipeEdit(
                "wrong weight row",
                f"{recipe.op} parts {i - 1} and {i} swapped",
                Recipe.of(recipe.op, *order, **attributes),
            )
            twice = (*recipe.inputs[:i], recipe.inputs[i - 1], *recipe.inputs[i + 1 :])
            yield RecipeEdit(
                "stale alias", f"{recipe.op} part {i - 1} in place of {i}", Recipe.of(recipe.op, *twice, **attributes)
            )
    if recipe.op == "interleave":
        for block in (attributes["block"] // 2, attributes["block"] + 1):
            yield RecipeEdit(
                "wrong weight row", f"blocks of {block}", Recipe.of("interleave", *recipe.inputs, block=block)
            )
        joined = Recipe.of("concat", *recipe.inputs, axis=0)
        yield RecipeEdit("wrong weight row", "not interleaved", joined)
    if recipe.op == "concat" and len(set(parts)) == 1 and len(parts[0].sizes) == 2:
        beside = Recipe.of("concat", *recipe.inputs, axis=1 - attributes["axis"])
        whole = recipe_type("concat", parts, attributes).sizes
        yield RecipeEdit("wrong axis", "joined on the other axis", Recipe.of("reshape", beside, shape=whole))
    if recipe.op == "slice":
        width = parts[0].sizes[attributes["axis"]]
        for by in (-1, 1):
            start, stop = attributes["start"] + by, attributes["stop"] + by
            if start >= 0 and stop <= width:
                moved = Recipe.of("slice", *recipe.inputs, **{**attributes, "start": start, "stop": stop})
                yield RecipeEdit("off-by-one window", f"slice from {start}", moved)
    if recipe.op == "permute":
        shape = tuple(parts[0].sizes[a] for a in attributes["axes"])
        yield RecipeEdit("wrong axis", "reshaped, not permuted", Recipe.of("reshape", *recipe.inputs, shape=shape))
        yield RecipeEdit("wrong axis", "not permuted", recipe.inputs[0])
    if (
        recipe.op == "reshape"
        and len(attributes["shape"]) == 2
        and prod(attributes["shape"]) > max(attributes["shape"])
    ):
        turned = Recipe.of("reshape", *recipe.inputs, shape=attributes["shape"][::-1])
        yield RecipeEdit("wrong axis", "the other axis first", Recipe.of("permute", turned, axes=(1, 0)))
    if recipe.op == "add_scalar":
        yield RecipeEdit("drop a term", f"{attributes['value']} not added", recipe.inputs[0])
        wrong = Recipe.of("add_scalar", *recipe.inputs, value=attributes["value"] * 1.01)
        yield RecipeEdit("wrong eps", "another constant added", wrong)
    wide = recipe_type(recipe.op, parts, attributes).dtype == "f32" if parts else False
    if wide and not (recipe.op == "to_dtype" and parts[0].dtype == "bf16"):
        narrow = Recipe.of("to_dtype", recipe, dtype="bf16")
        yield RecipeEdit("lost cast", f"{recipe.op} rounded to bf16", Recipe.of("to_dtype", narrow, dtype="f32"))
