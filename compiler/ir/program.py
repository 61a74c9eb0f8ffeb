"""A program: FX graphs of ops, the weights and states they use, and the facts of the model they came from."""

import copy
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from ...runtime.artifact.recipe import Recipe
from ...runtime.artifact.schema import ModelFacts
from .op import Op
from .types import PagedType, TensorType, ValueType


@dataclass(frozen=True)
class Weight:
    """A constant tensor: its logical type, how it is made from the checkpoint, and how it is stored.

    ``layout`` says how the artifact stores it: ``rows`` (row-major) or ``panels`` (``pack_panels``). The logical type
    stays what ops see, so that every stage can be interpreted.
    """

    type: TensorType
    recipe: Recipe
    layout: str = "rows"

    @property
    def stored(self) -> Recipe:
        return Recipe.of("pack_panels", self.recipe) if self.layout == "panels" else self.recipe


@dataclass(frozen=True)
class Group:
    """Layers whose caches share one block table. ``window``: positions a token sees, itself included; None is all."""

    index: int
    window: int | None


@dataclass
class Function:
    """One graph. Placeholders are its inputs in order; its output node returns the values named by ``results``."""

    name: str
    graph: fx.Graph
    results: tuple[str, ...]

    @property
    def inputs(self) -> list[fx.Node]:
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    @property
    def output(self) -> fx.Node:
        return self.graph.output_node()

    @property
    def outputs(self) -> tuple[fx.Node, ...]:
        return self.output.args[0]

    @property
    def calls(self) -> list[fx.Node]:
        return [n for n in self.graph.nodes if n.op == "call_function"]


@dataclass
class Program:
    facts: ModelFacts
    functions: dict[str, Function]
    weights: dict[str, Weight]
    constants: dict[str, Any]
    """Arrays (``recipe.Tensor``) that ``Recipe.constant`` leaves name."""
    groups: tuple[Group, ...] = ()
    stage: str = "traced"

    def copy(self) -> "Program":
        """A deep copy of the graphs; types, weights and constants are immutable and shared."""
        functions = {}
        for name, function in self.functions.items():
            graph = fx.Graph()
            mapping: dict[fx.Node, fx.Node] = {}
            output = graph.graph_copy(function.graph, mapping)
            graph.output(output)
            for old, new in mapping.items():
                new.meta = copy.copy(old.meta)
            functions[name] = Function(name, graph, function.results)
        return replace(self, functions=functions, weights=dict(self.weights), constants=dict(self.constants))

    @property
    def forward(self) -> Function:
        return self.functions["forward"]

    @property
    def states(self) -> dict[str, PagedType]:
        """The states of the forward function by name, in layer order."""
        return {n.target: n.meta["type"] for n in self.forward.inputs if isinstance(n.meta["type"], PagedType)}

    def unused_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.weights:
            name, number = f"{wanted}.{number}", number + 1
        return name


def type_of(value: Any) -> Any:
    """The type of a node; immediates and None stand for themselves."""
    return value.meta["type"] if isinstance(value, fx.Node) else value


def is_call(value: Any, *names: str) -> bool:
    """Whether ``value`` is a node that calls one of the named ops."""
    return (
        isinstance(value, fx.Node)
        and value.op == "call_function"
        and isinstance(value.target, Op)
        and value.target.name in names
    )


def mutates_state(node: fx.Node) -> bool:
    """Whether ``node`` is a call that changes a state."""
    return isinstance(node.target, Op) and node.target.traits.mutates is not None


def is_weight(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


def emit(
    graph: fx.Graph, op: Op, *operands: Any, where: str = "", name: str | None = None, **attributes: Any
) -> fx.Node:
    """Insert a call at the graph's insertion point, with its inferred type. ``where``: the module path it came from."""
    node = graph.create_node("call_function", op, operands, attributes, name=name)
    node.meta["type"] = op.result_type(*[type_of(o) for o in operands], **attributes)
    node.meta["where"] = where
    return node


def emit_weight(graph: fx.Graph, program: Program, name: str) -> fx.Node:
    """The node of a weight: the existing one if the graph reads it already, else a new one at the graph's start."""
    for node in graph.nodes:
        if node.op == "get_attr" and node.target == name:
            return node
    last_input = [n for n in graph.nodes if n.op in ("placeholder", "get_attr")][-1]
    with graph.inserting_after(last_input):
        node = graph.create_node("get_attr", name)
    node.meta["type"] = program.weights[name].type
    node.meta["where"] = ""
    return node


def retype(node: fx.Node) -> ValueType:
    """The type its op infers from its operands' recorded types."""
    return node.target.result_type(*[type_of(a) for a in node.args], **node.kwargs)
