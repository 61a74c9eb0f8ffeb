"""A replacement cut out of a program: what stood there and what stands there now, as two graphs of the same inputs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import fx

from ...runtime.artifact.recipe import Recipe
from .program import Program, Weight
from .text import print_body

LARGEST = 400
"""Calls in one side of a replacement; more means that the two sides do not meet in common inputs."""


@dataclass(frozen=True)
class Region:
    """Two graphs whose placeholders are the same values in the same order."""

    old: fx.Graph
    new: fx.Graph
    inputs: tuple[str, ...]
    """For each placeholder: the name of a function input or weight (``@name``), or empty for a computed value."""
    weights: dict[str, Weight]
    where: str

    @property
    def key(self) -> str:
        """Equal for replacements of the same structure at the same sizes, with weights made by the same recipes.

        Checkpoint names are numbered by their first appearance, so that layers compare equal, while another order of
        the same parts, or one weight where there were two, does not.
        """
        numbers: dict[str, int] = {}
        named = [n.split(".")[0] if not n.startswith("@") else self._recipe(n[1:], numbers) for n in self.inputs]
        return f"{print_body(self.old)} => {print_body(self.new)} of {named}"

    def _recipe(self, weight: str, numbers: dict[str, int]) -> str:
        def anonymous(recipe: Recipe) -> object:
            attributes = dict(recipe.attributes)
            if "name" in attributes:
                attributes["name"] = numbers.setdefault(attributes["name"], len(numbers))
            return [recipe.op, [anonymous(i) for i in recipe.inputs], attributes]

        return f"@{anonymous(self.weights[weight].recipe)}"


def extract(
    program: Program,
    old: list[fx.Node],
    new: list[fx.Node],
    created: Iterable[fx.Node],
    boundary: Iterable[fx.Node] = (),
) -> Region:
    """The region between values common to both sides and the replaced values.

    The new side reaches back through the calls the pass created (its roots at least one call deep); where it stops are
    the region's inputs. The old side reaches back to those, and to ``boundary``: values known to be inputs of both,
    even if the new side does without them.
    """
    made = set(created)
    frontier: dict[fx.Node, None] = {}
    for root in new:
        for argument in _expand(root, lambda n: n in made):
            frontier[argument] = None
    for node in _leaves(old, set(frontier), set(boundary) - set(old)):
        frontier[node] = None
    inputs = list(frontier)
    names = tuple(_name(n) for n in inputs)
    weights = {n[1:]: program.weights[n[1:]] for n in names if n.startswith("@")}
    where = old[0].meta.get("where") or old[0].name
    return Region(_cut(old, inputs), _cut(new, inputs), names, weights, where)


def _expand(root: fx.Node, inside: Callable[[fx.Node], bool]) -> list[fx.Node]:
    """Values at which the walk back from ``root`` leaves the created calls."""
    leaves: dict[fx.Node, None] = {}
    stack, seen = [root], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "call_function" and (node is root or inside(node)):
            stack.extend(node.all_input_nodes)
        else:
            leaves[node] = None
    return list(leaves)


def _leaves(roots: list[fx.Node], frontier: set[fx.Node], boundary: set[fx.Node]) -> list[fx.Node]:
    """Function inputs, weights and values of the boundary that the old side reads besides the frontier."""
    leaves: dict[fx.Node, None] = {}
    stack, seen = list(roots), set()
    while stack:
        node = stack.pop()
        if node in seen or node in frontier:
            continue
        seen.add(node)
        if len(seen) > LARGEST:
            raise ValueError(f"the replacement of %{roots[0].name} reads nothing that what it replaces is made of")
        if node.op == "call_function" and node not in boundary:
            stack.extend(node.all_input_nodes)
        else:
            leaves[node] = None
    return list(leaves)


def _name(node: fx.Node) -> str:
    if node.op == "get_attr":
        return f"@{node.target}"
    return str(node.target) if node.op == "placeholder" else ""


def _cut(roots: list[fx.Node], inputs: list[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for i, node in enumerate(inputs):
        mapping[node] = graph.placeholder(f"input_{i}")
        mapping[node].meta["type"] = node.meta["type"]

    def copy(node: fx.Node) -> fx.Node:
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [n for n in top.all_input_nodes if n not in mapping]
            if top in mapping:
                stack.pop()
            elif missing:
                stack.extend(missing)
            else:
                mapping[top] = graph.node_copy(top, mapping.__getitem__)
                mapping[top].meta = dict(top.meta)
                stack.pop()
        return mapping[node]

    graph.output(tuple(copy(r) for r in roots))
    return graph
